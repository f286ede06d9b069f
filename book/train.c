/* What the page calls: texts, steps of AdamW with a quadratic pull, the Fisher information, three scores. Nothing is
   allocated, and every sum has one order, so that a browser and this machine's own processor find the same bits. */
#include "model.h"

#ifdef __wasm__
#define API(name) __attribute__((export_name(#name)))
#else
#define API(name) __attribute__((visibility("default")))
#endif

typedef struct { /* six sets of texts: those to train on of each kind, then those to test on */
  int first[2 * KINDS + 1], start[ALL_TEXTS + 1]; /* the first text of a set, the first token of a text */
  short id[ALL_TOKENS], asked[ALL_TOKENS];        /* asked: the class that a token is asked for, -1: none */
} Data;

static Weights start, mean, square, omega; /* θ*, AdamW's m and v, Ω */
static Data data;
static struct { double rate, lambda, beta1, beta2; int kept, order[ALL_TEXTS], left; } run;
static double found[KINDS];

/* ---- texts ---- */

static int texts_of(int set) { return data.first[set + 1] - data.first[set]; }

/* Hide words of the text that was just taken: 15 % of them, one at least; 80 % as [MASK], 10 % as any other word. */
static void hide(int from, int to) {
  double chances[L], least = 2;
  for (int t = from; t < to; t++) {
    chances[t - from] = batch.id[t] < MARKS ? 2 : uniform(MASKS);
    least = chances[t - from] < least ? chances[t - from] : least;
  }
  for (int t = from; t < to; t++)
    if (chances[t - from] < 2 && (chances[t - from] < 0.15 || chances[t - from] == least)) {
      double how = uniform(MASKS);
      batch.at[batch.places] = t, batch.to[batch.places++] = batch.id[t];
      batch.id[t] = how < 0.8 ? MASK : how < 0.9 ? batch.id[t] : below(MASKS, VOCAB);
    }
}

API(empty) void empty(void) { batch.texts = batch.places = 0; }

/* Add a text of a set to the batch, with the places that are asked about; 0 where it is none, or has no room. */
API(take) int take(int set, int text) {
  if (set < 0 || set >= 2 * KINDS || text < 0 || text >= texts_of(set) || batch.texts >= BATCH) return 0;
  int from = data.start[data.first[set] + text], n = data.start[data.first[set] + text + 1] - from;
  int to = batch.start[batch.texts], kind = set % KINDS;
  if (n > L || to + n > ROWS || (batch.places + n) * classes(kind) > LOGITS) return 0;
  for (int i = 0; i < n; i++) {
    batch.id[to + i] = data.id[from + i];
    if (data.asked[from + i] >= 0) batch.at[batch.places] = to + i, batch.to[batch.places++] = data.asked[from + i];
  }
  batch.start[++batch.texts] = to + n;
  if (set == TEXT) hide(to, to + n);
  return n;
}

/* ---- what the page calls ---- */

/* Where something lies: θ*, θ, g, Ω, the texts, what `score` found, the batch; and how long it is in bytes. */
static const struct { void *at; int bytes; } parts[] = {
    {&start, sizeof start}, {&theta, sizeof theta}, {&grad, sizeof grad}, {&omega, sizeof omega},
    {&data, sizeof data},   {found, sizeof found},  {&batch, sizeof batch},
};
API(where) void *where(int part) { return parts[part].at; }
API(bytes) int bytes(int part) { return parts[part].bytes; }

/* 0, or 1 + the number of the first text that is not as the sizes promise: called once, before all else. */
API(wrong) int wrong(void) {
  for (int set = 0; set < 2 * KINDS; set++)
    for (int text = data.first[set]; text < data.first[set + 1]; text++) {
      int from = data.start[text], to = data.start[text + 1];
      if (text < 0 || text >= ALL_TEXTS || from < 0 || to > ALL_TOKENS || to - from < 3 || to - from > L) return 1 + text;
      for (int t = from; t < to; t++)
        if (data.id[t] < 0 || data.id[t] >= VOCAB || data.asked[t] >= classes(set % KINDS)) return 1 + text;
    }
  return 0;
}

/* A run from θ*: AdamW's rate, the pull's λ, and the seed of all draws. Ω is 1 until `fisher` measures it. */
API(begin) void begin(int seed, double rate, double lambda) {
  theta = start;
  clear(&mean, sizeof mean), clear(&square, sizeof square), clear(&omega, sizeof omega);
  for (int use = 0; use < 4; use++) chance[use] = (u64)seed * 4 + use, chance[use] = draw(use);
  for (int i = 0; i < CLASSES * W; i++) (*theta.w_new)[i] = 0.02f * (float)normal(HEAD);
  clear(theta.b_new, sizeof theta.b_new);
  run.rate = rate, run.lambda = lambda, run.beta1 = run.beta2 = 1, run.left = 0;
  run.kept = NUMBERS(theta) - NUMBERS(theta.w_new) - NUMBERS(theta.b_new);
  for (int i = 0; i < run.kept; i++) ((float *)&omega)[i] = 1;
}

/* The mean loss of the batch in nats, and its gradient. */
API(gradient) double gradient(int kind) {
  predict(kind);
  double sum = cross_entropy(kind, 1.0f / batch.places, 0);
  clear(&grad, sizeof grad);
  learn(kind);
  return sum / batch.places;
}

/* Ω += mean over texts of E (∂ log p(y) / ∂θ)², y drawn from p four times; 0 where there are not so many texts. */
API(fisher) int fisher(int kind, int texts) {
  static int order[ALL_TEXTS];
  if (kind < TEXT || kind > TAGS || texts > texts_of(kind)) return 0;
  if (kind == TEXT) clear(&omega, sizeof omega); /* the first of the two: what was 1 becomes a sum */
  for (int i = 0; i < texts_of(kind); i++) order[i] = i;
  for (int i = 0; i < texts; i++) {
    int other = i + below(MASKS, texts_of(kind) - i), text = order[other];
    order[other] = order[i];
    empty();
    take(kind, text);
    predict(kind);
    for (int d = 0; d < DRAWS; d++) {
      cross_entropy(kind, 1, 1);
      clear(&grad, sizeof grad);
      learn(kind);
      const float *g = (const float *)&grad;
      for (int j = 0; j < run.kept; j++) ((float *)&omega)[j] += g[j] * g[j] / (DRAWS * texts);
    }
  }
  return 1;
}

/* θ by AdamW without weight decay from the gradient in place, after the pull and the clipping. */
API(update) void update(void) {
  float *w = (float *)&theta, *g = (float *)&grad, *m = (float *)&mean, *v = (float *)&square;
  const float *anchor = (const float *)&start, *own = (const float *)&omega, lambda = (float)run.lambda;
  double squares = 0;
  for (int i = 0; i < run.kept; i++) g[i] += lambda * own[i] * (w[i] - anchor[i]); /* ∂ (λ/2) Σ Ω (θ − θ*)² */
  for (int i = 0; i < (int)NUMBERS(grad); i++) squares += (double)g[i] * g[i];
  float size = __builtin_sqrtf((float)squares), clip = size + 1e-6f > CLIP ? CLIP / (size + 1e-6f) : 1;
  run.beta1 *= 0.9, run.beta2 *= 0.999;
  float step = (float)(run.rate / (1 - run.beta1)), root = __builtin_sqrtf((float)(1 - run.beta2));
  for (int i = 0; i < (int)NUMBERS(grad); i += 1) {
    float own_g = clip * g[i];
    m[i] += 0.1f * (own_g - m[i]);
    v[i] = 0.999f * v[i] + 0.001f * own_g * own_g;
    w[i] -= step * m[i] / (__builtin_sqrtf(v[i]) / root + 1e-8f); /* θ − η m̂ / (√v̂ + ε) */
  }
}

/* The next texts of the new task, each of them once before any comes again. */
API(next) void next(void) {
  empty();
  for (int i = 0, n = texts_of(NEW); i < BATCH; i++) {
    if (!run.left) {
      for (int j = 0; j < n; j++) { /* a random order, from the inside out */
        int other = below(ORDER, j + 1);
        run.order[j] = run.order[other], run.order[other] = j;
      }
      run.left = n;
    }
    take(NEW, run.order[--run.left]);
  }
}

/* One step on them; returns the mean loss. */
API(step) double step(void) {
  next();
  double loss = gradient(NEW);
  update();
  return loss;
}

static int best(const float *row, int n) {
  int most = 0;
  for (int j = 1; j < n; j++) most = row[j] > row[most] ? j : most;
  return most;
}

/* The entity that begins at word i, as its end, or 0; B begins one, and so does I after another kind or none. */
static int entity(const int *tags, int i, int n) {
  int kind = KIND[tags[i]], end = i + 1;
  if (kind < 0 || (!BEGINS[tags[i]] && i > 0 && KIND[tags[i - 1]] == kind)) return 0;
  while (end < n && !BEGINS[tags[end]] && KIND[tags[end]] == kind) end++;
  return end;
}

/* Sums over the test texts. NEW: right, all. TEXT: Σ −log p, places. TAGS: exact hits, entities said, entities there. */
API(score) void score(int kind) {
  int set = KINDS + kind, n = texts_of(set), words[ROWS];
  found[0] = found[1] = found[2] = 0;
  for (int text = 0; text < n;) {
    empty();
    while (text < n && take(set, text)) text++;
    if (!batch.texts) return; /* a text that has no room: `wrong` has said so */
    predict(kind);
    if (kind == TEXT) found[0] += cross_entropy(kind, 0, 0), found[1] += batch.places;
    for (int p = 0; kind != TEXT && p < batch.places; p++) words[p] = best(logits + p * classes(kind), classes(kind));
    for (int p = 0; kind == NEW && p < batch.places; p++) found[0] += words[p] == batch.to[p], found[1]++;
    for (int s = 0, from = 0, to = 0; kind == TAGS && s < batch.texts; s++, from = to) {
      while (to < batch.places && batch.at[to] < batch.start[s + 1]) to++;
      for (int i = 0; i < to - from; i++) {
        int said = entity(words + from, i, to - from), there = entity(batch.to + from, i, to - from);
        found[0] += said && said == there && KIND[words[from + i]] == KIND[batch.to[from + i]];
        found[1] += said > 0, found[2] += there > 0;
      }
    }
  }
}

/* ‖θ − θ*‖ over the weights that were there before */
API(drift) double drift(void) {
  double sum = 0;
  for (int i = 0; i < run.kept; i++) {
    double moved = (double)((float *)&theta)[i] - ((float *)&start)[i];
    sum += moved * moved;
  }
  return __builtin_sqrt(sum);
}
