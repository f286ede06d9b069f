/* A small BERT as transformers has it: LayerNorm after each sum, ReLU, no dropout. Its three heads and their losses, and
   every gradient. sizes.h is made by texts.py from the shipped model and its tasks: W is the width, L the longest text.
   Texts lie one after another without padding: t counts tokens, s texts, p the places that a loss asks about. */
#include "sizes.h"
#include "numbers.h"

#define ROWS (BATCH * L)
#define D (W / HEADS)
#define NUMBERS(weights) (sizeof(weights) / sizeof(float))

enum { NEW, TEXT, TAGS, KINDS }; /* sentiment, general text with hidden words, entities */

typedef struct {
  float w_q[W][W], b_q[W], w_k[W][W], b_k[W], w_v[W][W], b_v[W], w_o[W][W], b_o[W], g1[W], c1[W];
  float w_1[INNER][W], b_1[INNER], w_2[W][INNER], b_2[W], g2[W], c2[W];
} Layer;

typedef struct { /* in the order of the model's parameters */
  float word[VOCAB][W], position[POSITIONS][W], type[TYPES][W], g0[W], c0[W];
  Layer layer[LAYERS];
  float b_word[VOCAB], w_lm[W][W], b_lm[W], g_lm[W], c_lm[W];
  float w_tag[TAG_COUNT][W], b_tag[TAG_COUNT];
  float w_new[CLASSES][W], b_new[CLASSES]; /* the new head, the only part that was not there before: nothing pulls it */
} Weights;

typedef struct { /* what a layer keeps for the way back */
  float x[ROWS][W], q[ROWS][W], k[ROWS][W], v[ROWS][W], p[ROWS][HEADS][L], seen[ROWS][W];
  float n1[ROWS][W], r1[ROWS], a[ROWS][W], f[ROWS][INNER], n2[ROWS][W], r2[ROWS];
} Pass;

static Weights theta, grad;
static Pass pass[LAYERS];
static float n0[ROWS][W], r0[ROWS], y[ROWS][W], dy[ROWS][W]; /* y: the last hidden states */
static float h[ROWS][W], dh[ROWS][W], f_lm[ROWS][W], n_lm[ROWS][W], r_lm[ROWS], u[ROWS][W], logits[LOGITS], dlogits[LOGITS];
static float d1[ROWS][W], d2[ROWS][W], dq[ROWS][W], dk[ROWS][W], dv[ROWS][W], df[ROWS][INNER], turned[W * VOCAB];

static struct { int texts, start[BATCH + 1], id[ROWS], places, at[ROWS], to[ROWS]; } batch; /* at: token, to: class */

/* ---- layers: each forward, and its gradients added up ---- */

/* Y = X Wᵀ + b */
static void linear(float *out, const float *x, const float *w, const float *b, int rows, int from, int to) {
  for (int o = 0; o < to; o++)
    for (int i = 0; i < from; i++) turned[i * to + o] = w[o * from + i];
  for (int r = 0; r < rows; r++) __builtin_memcpy(out + r * to, b, to * sizeof(float));
  product(out, x, turned, rows, from, to, from, 1);
}

/* dX += dY W, dW += dYᵀ X, db += Σ dY */
static void linear_back(
    float *dx, float *dw, float *db, const float *d, const float *x, const float *w, int rows, int from, int to) {
  product(dx, d, w, rows, to, from, to, 1);
  product(dw, d, x, to, rows, from, 1, to);
  for (int r = 0; r < rows; r++)
    for (int o = 0; o < to; o++) db[o] += d[r * to + o];
}

/* y = g ∘ n + c with n = (z − mean z) r, r = 1 / √(var z + ε); n may lie where z does */
static void norm(float *out, float *n, float *r, const float *z, const float *g, const float *c, int rows) {
  for (int t = 0; t < rows; t++, z += W, n += W, out += W) {
    v4 sum = 0, squares = 0;
    for (int i = 0; i < W; i += 4) sum += at4(z + i);
    float mu = sum4(sum) / W;
    for (int i = 0; i < W; i += 4) squares += (at4(z + i) - mu) * (at4(z + i) - mu);
    r[t] = 1 / __builtin_sqrtf(sum4(squares) / W + EPS);
    for (int i = 0; i < W; i++) n[i] = (z[i] - mu) * r[t], out[i] = g[i] * n[i] + c[i];
  }
}

/* dz = r (dn − mean dn − n mean(dn ∘ n)), dn = g ∘ dy; dg += Σ dy ∘ n, dc += Σ dy; dz may lie where dy does */
static void norm_back(
    float *dz, float *dg, float *dc, const float *d, const float *n, const float *r, const float *g, int rows) {
  for (int t = 0; t < rows; t++, dz += W, d += W, n += W) {
    v4 sum = 0, along = 0;
    for (int i = 0; i < W; i += 4) {
      v4 dn = at4(g + i) * at4(d + i);
      sum += dn, along += dn * at4(n + i);
    }
    float m = sum4(sum) / W, m_n = sum4(along) / W;
    for (int i = 0; i < W; i++) {
      float own = d[i];
      dg[i] += own * n[i], dc[i] += own;
      dz[i] = r[t] * (g[i] * own - m - n[i] * m_n);
    }
  }
}

static float dot(const float *a, const float *b) {
  v4 sum = 0;
  for (int i = 0; i < D; i += 4) sum += at4(a + i) * at4(b + i);
  return sum4(sum);
}
static void add(float *to, float times, const float *x) {
  for (int i = 0; i < D; i += 4) *(v4 *)(to + i) += times * at4(x + i);
}

/* p_j = exp(s_j − max s) / Σ exp; returns log Σ exp s */
static double softmax(float *p, const float *s, int n) {
  float most = s[0];
  double sum = 0;
  for (int j = 1; j < n; j++) most = s[j] > most ? s[j] : most;
  for (int j = 0; j < n; j++) sum += p[j] = exponential(s[j] - most);
  for (int j = 0; j < n; j++) p[j] /= (float)sum;
  return most + logarithm(sum);
}

#define EACH_HEAD(s, from, to, i)                                                   \
  for (int s = 0; s < batch.texts; s++)                                             \
    for (int head = 0, from = batch.start[s], to = batch.start[s + 1]; head < W; head += D) \
      for (int i = from; i < to; i++)

/* P = softmax(q kᵀ / √d), seen = P v: each text and head alone */
static void attention(Pass *a) {
  const float scale = 1 / __builtin_sqrtf(D);
  clear(a->seen, sizeof a->seen);
  EACH_HEAD(s, from, to, i) {
    float *p = a->p[i][head / D];
    for (int j = from; j < to; j++) p[j - from] = scale * dot(a->q[i] + head, a->k[j] + head);
    softmax(p, p, to - from);
    for (int j = from; j < to; j++) add(a->seen[i] + head, p[j - from], a->v[j] + head);
  }
}

/* dv = Pᵀ d(P v), dS = P ∘ (dP − Σ P dP), dq = dS k / √d, dk = dSᵀ q / √d */
static void attention_back(const Pass *a, float (*d)[W]) {
  const float scale = 1 / __builtin_sqrtf(D);
  clear(dq, sizeof dq), clear(dk, sizeof dk), clear(dv, sizeof dv);
  EACH_HEAD(s, from, to, i) {
    const float *p = a->p[i][head / D];
    float dp[L], sum = 0;
    for (int j = from; j < to; j++) {
      dp[j - from] = dot(d[i] + head, a->v[j] + head);
      sum += p[j - from] * dp[j - from];
      add(dv[j] + head, p[j - from], d[i] + head);
    }
    for (int j = from; j < to; j++) {
      float ds = p[j - from] * (dp[j - from] - sum) * scale;
      add(dq[i] + head, ds, a->k[j] + head), add(dk[j] + head, ds, a->q[i] + head);
    }
  }
}

/* ---- the model ---- */

static void forward(void) {
  int rows = batch.start[batch.texts];
  for (int s = 0; s < batch.texts; s++)
    for (int t = batch.start[s]; t < batch.start[s + 1]; t++)
      for (int i = 0; i < W; i++) /* e = word + position + type */
        n0[t][i] = theta.word[batch.id[t]][i] + theta.type[0][i] + theta.position[t - batch.start[s]][i];
  norm(*pass[0].x, *n0, r0, *n0, theta.g0, theta.c0, rows);
  for (int l = 0; l < LAYERS; l++) {
    Pass *a = pass + l;
    const Layer *w = theta.layer + l;
    linear(*a->q, *a->x, *w->w_q, w->b_q, rows, W, W);
    linear(*a->k, *a->x, *w->w_k, w->b_k, rows, W, W);
    linear(*a->v, *a->x, *w->w_v, w->b_v, rows, W, W);
    attention(a);
    linear(*a->n1, *a->seen, *w->w_o, w->b_o, rows, W, W); /* a = norm(x + W_o seen + b_o) */
    for (int i = 0; i < rows * W; i++) (*a->n1)[i] += (*a->x)[i];
    norm(*a->a, *a->n1, a->r1, *a->n1, w->g1, w->c1, rows);
    linear(*a->f, *a->a, *w->w_1, w->b_1, rows, W, INNER); /* y = norm(a + W_2 max(0, W_1 a + b_1) + b_2) */
    for (int i = 0; i < rows * INNER; i++) (*a->f)[i] = (*a->f)[i] < 0 ? 0 : (*a->f)[i];
    linear(*a->n2, *a->f, *w->w_2, w->b_2, rows, INNER, W);
    for (int i = 0; i < rows * W; i++) (*a->n2)[i] += (*a->a)[i];
    norm(l + 1 < LAYERS ? *pass[l + 1].x : *y, *a->n2, a->r2, *a->n2, w->g2, w->c2, rows);
  }
}

/* From the gradient dy of the last hidden states to those of all weights below. */
static void backward(void) {
  int rows = batch.start[batch.texts];
  for (int l = LAYERS - 1; l >= 0; l--) {
    const Pass *a = pass + l;
    const Layer *w = theta.layer + l;
    Layer *g = grad.layer + l;
    norm_back(*d2, g->g2, g->c2, *dy, *a->n2, a->r2, w->g2, rows);
    clear(df, rows * sizeof *df);
    linear_back(*df, *g->w_2, g->b_2, *d2, *a->f, *w->w_2, rows, INNER, W);
    for (int i = 0; i < rows * INNER; i++) (*df)[i] = (*a->f)[i] > 0 ? (*df)[i] : 0;
    linear_back(*d2, *g->w_1, g->b_1, *df, *a->a, *w->w_1, rows, W, INNER);
    norm_back(*d2, g->g1, g->c1, *d2, *a->n1, a->r1, w->g1, rows);
    clear(d1, rows * sizeof *d1);
    linear_back(*d1, *g->w_o, g->b_o, *d2, *a->seen, *w->w_o, rows, W, W);
    attention_back(a, d1);
    linear_back(*d2, *g->w_q, g->b_q, *dq, *a->x, *w->w_q, rows, W, W);
    linear_back(*d2, *g->w_k, g->b_k, *dk, *a->x, *w->w_k, rows, W, W);
    linear_back(*d2, *g->w_v, g->b_v, *dv, *a->x, *w->w_v, rows, W, W);
    __builtin_memcpy(dy, d2, rows * sizeof *dy);
  }
  norm_back(*dy, grad.g0, grad.c0, *dy, *n0, r0, theta.g0, rows);
  for (int s = 0; s < batch.texts; s++)
    for (int t = batch.start[s]; t < batch.start[s + 1]; t++)
      for (int i = 0; i < W; i++) {
        grad.word[batch.id[t]][i] += dy[t][i], grad.type[0][i] += dy[t][i];
        grad.position[t - batch.start[s]][i] += dy[t][i];
      }
}

static int classes(int kind) { return kind == NEW ? CLASSES : kind == TEXT ? VOCAB : TAG_COUNT; }

/* The logits of the batch's places by the head of that kind. */
static void predict(int kind) {
  int n = batch.places;
  forward();
  clear(h, n * sizeof *h);
  for (int p = 0; p < n; p++) { /* the new head reads the mean of its text, the others one token */
    int from = kind == NEW ? batch.start[p] : batch.at[p], to = kind == NEW ? batch.start[p + 1] : from + 1;
    for (int t = from; t < to; t++)
      for (int i = 0; i < W; i++) h[p][i] += y[t][i] / (to - from);
  }
  if (kind == NEW) linear(logits, *h, *theta.w_new, theta.b_new, n, W, CLASSES);
  if (kind == TAGS) linear(logits, *h, *theta.w_tag, theta.b_tag, n, W, TAG_COUNT);
  if (kind == TEXT) { /* norm(max(0, W h + b)) Eᵀ + b_word: the embeddings E read what they wrote */
    linear(*f_lm, *h, *theta.w_lm, theta.b_lm, n, W, W);
    for (int i = 0; i < n * W; i++) (*f_lm)[i] = (*f_lm)[i] < 0 ? 0 : (*f_lm)[i];
    norm(*u, *n_lm, r_lm, *f_lm, theta.g_lm, theta.c_lm, n);
    linear(logits, *u, *theta.word, theta.b_word, n, W, VOCAB);
  }
}

/* Σ −log p(y) over the places, and its gradient weight · (p − 1_y) at the logits. drawn: y is drawn from p first. */
static double cross_entropy(int kind, float weight, int drawn) {
  int n = classes(kind);
  double sum = 0;
  for (int p = 0; p < batch.places; p++) {
    float *row = logits + p * n, *d = dlogits + p * n;
    double all = softmax(d, row, n);
    if (drawn) {
      double ticket = uniform(LABELS);
      for (batch.to[p] = 0; batch.to[p] < n - 1 && (ticket -= d[batch.to[p]]) >= 0;) batch.to[p]++;
    }
    sum += all - row[batch.to[p]];
    d[batch.to[p]] -= 1;
    for (int j = 0; j < n; j++) d[j] *= weight;
  }
  return sum;
}

/* From the gradient at the logits to those of all weights. */
static void learn(int kind) {
  int n = batch.places;
  clear(dh, n * sizeof *dh), clear(dy, batch.start[batch.texts] * sizeof *dy);
  if (kind == NEW) linear_back(*dh, *grad.w_new, grad.b_new, dlogits, *h, *theta.w_new, n, W, CLASSES);
  if (kind == TAGS) linear_back(*dh, *grad.w_tag, grad.b_tag, dlogits, *h, *theta.w_tag, n, W, TAG_COUNT);
  if (kind == TEXT) {
    clear(d1, n * sizeof *d1);
    linear_back(*d1, *grad.word, grad.b_word, dlogits, *u, *theta.word, n, W, VOCAB);
    norm_back(*d1, grad.g_lm, grad.c_lm, *d1, *n_lm, r_lm, theta.g_lm, n);
    for (int i = 0; i < n * W; i++) (*d1)[i] = (*f_lm)[i] > 0 ? (*d1)[i] : 0;
    linear_back(*dh, *grad.w_lm, grad.b_lm, *d1, *h, *theta.w_lm, n, W, W);
  }
  for (int p = 0; p < n; p++) {
    int from = kind == NEW ? batch.start[p] : batch.at[p], to = kind == NEW ? batch.start[p + 1] : from + 1;
    for (int t = from; t < to; t++)
      for (int i = 0; i < W; i++) dy[t][i] += dh[p][i] / (to - from);
  }
  backward();
}
