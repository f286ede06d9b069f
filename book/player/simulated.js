// The simulated labs, computed in the page: the same settings, numbers, words and panels as forgetlab.labs has.
// forgetlab.simulated[lab](settings) is what the page draws. tests/book/test_simulated.py holds it to the Python labs.
'use strict';
{
const RED = '#bd1f01', BLUE = '#3f90da', VIOLET = '#832db6', ORANGE = '#e76300', GREY = '#717581', INK = '#222222';
const range = (n) => Array.from({length: n}, (_, i) => i);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
const plus = (a, b, times = 1) => [a[0] + times * b[0], a[1] + times * b[1]];
const apply = (M, v) => [dot(M[0], v), dot(M[1], v)];

// ---- marks, as book/player/drawing.py reads them from a figure ----

const pattern = (...long) => (width) => ({width, dash: long.map((part) => Number((part * width).toPrecision(4))).join(' ')});
const dashed = pattern(3.7, 1.6), dotted = pattern(1, 1.65);  // in widths of the line, as Matplotlib's "--" and ":"
const marker = (sign, size) => ({marker: sign, size, filled: true});
const line = (x, y, look) => ({kind: 'line', label: '', x, y, ...look});
const dots = (x, y, look) => ({kind: 'dots', label: '', x, y, ...look});
const text = (x, y, words, anchor, base, look) => ({kind: 'text', x, y, text: words, color: INK, anchor, base, ...look});
const rule = (axis, at, look) => ({kind: 'rule', axis, at, color: INK, ...look});
const axis = (label, low, high, ticks) => ({label, log: false, limits: [low, high], ...ticks && {ticks}});
const entries = (looks) => Object.entries(looks).map(([label, look]) => ({label, ...look}));

// ---- numbers as Python writes them ----

function fixed(x, places) {  // toFixed, but a tie goes to the even digit
  const [, kept, rest] = Math.abs(x).toFixed(60).match(`^(\\d+${places ? `\\.\\d{${places}}` : ''})\\.?(\\d*)$`);
  const even = /^50*$/.test(rest) && '02468'.includes(kept.at(-1));
  return (x < 0 ? '-' : '') + (even ? kept : Math.abs(x).toFixed(places));
}
const round = (x, places) => Number(fixed(x, places));
function digits(x, n) {  // Python's %#.ng for what is below 10ⁿ and at least 0.0001
  return fixed(x, n - 1 - Number(x.toExponential(n - 1).split('e')[1]));
}
const number = (x) => digits(x, 3);  // as forgetlab.plots.style.number, for the values that occur here
function twoDigits(x) {  // Python's %.2g
  if (Math.abs(x) < 1e-4) return x.toExponential(1).replace('.0e', 'e').replace(/-(\d)$/, '-0$1');
  return String(Number(digits(x, 2)));
}
const score = (x) => fixed(round(x, 2), 2);
const percent = (share) => `${fixed(100 * share, share >= 0.0995 ? 0 : 1)} %`;

// ---- two tasks: gradient descent on quadratic valleys (forgetlab.simulators.two_tasks) ----

const STEPS = 100, SLACK = 0.05, DISTANCE = 2, FAR = 100, SCORES = [0.9, 0.5, 0.1];
// H = uuᵀ + slack·(I − uuᵀ): sensitive along u, nearly flat across
const valley = ([a, b]) => [[a * a + SLACK * b * b, (1 - SLACK) * a * b], [(1 - SLACK) * a * b, b * b + SLACK * a * a]];
const loss = (theta, H, o) => 0.5 * dot(plus(theta, o, -1), apply(H, plus(theta, o, -1)));  // ½(θ − o)ᵀH(θ − o)

function twoTasks({rate, decay, overlap, lam}) {
  const uOld = [1, 0], uNew = [Math.sqrt(overlap), Math.sqrt(1 - overlap)];  // overlap = (u_old·u_new)²
  const [HOld, HNew] = [valley(uOld), valley(uNew)], old = [0, 0], best = [DISTANCE * uNew[0], DISTANCE * uNew[1]];
  const M = [0, 1].map((i) => plus(HNew[i], HOld[i], lam)), [[a, b], [, d]] = M;  // H_new + λH_old
  const [x, y] = apply(HNew, best), det = a * d - b * b;
  const rest = [(d * x - b * y) / det, (a * y - b * x) / det];  // M·rest = H_new o_new
  // θ ← θ − η_t (H_new(θ − o_new) + λH_old(θ − o_old)) from θ = 0, along the eigenvectors v of M:
  // θ_t = rest − Σ_v v (v·rest) Π_{s<t} (1 − η_s m) with η_s = η(1 − decay)ˢ
  const half = Math.hypot((a - d) / 2, b), most = (a + d) / 2 + half, path = [old];
  const [v1, v2] = b ? [(a - d) / 2 + half, b].map((v, _, both) => v / Math.hypot(...both)) : a > d ? [1, 0] : [0, 1];
  const modes = [{v: [v1, v2], m: most}, {v: [-v2, v1], m: det / most}].map((mode) => ({...mode, left: dot(mode.v, rest)}));
  for (const t of range(STEPS)) {
    for (const mode of modes) mode.left *= 1 - rate * (1 - decay) ** t * mode.m;
    path.push(modes.reduce((at, {v, left}) => plus(at, v, -left), rest));
  }
  const stable = 2 / modes[0].m;
  return {path, old, best, uOld, uNew, rest, stable, diverges: rate * (1 - decay) ** (STEPS - 1) > stable,
    scoresOld: path.map((p) => Math.exp(-loss(p, HOld, old))), scoresNew: path.map((p) => Math.exp(-loss(p, HNew, best))),
    restOld: Math.exp(-loss(rest, HOld, old)), restNew: Math.exp(-loss(rest, HNew, best))};
}

function ring(u, o, score) {  // where the loss is −log(score): half axes √(2·loss/m) along u (m = 1) and across (m = slack)
  const along = Math.sqrt(-2 * Math.log(score)), across = along / Math.sqrt(SLACK);
  const points = range(100).map((i) => 2 * Math.PI * i / 99).map((turn) =>
    plus(plus(o, u, along * Math.cos(turn)), [-u[1], u[0]], across * Math.sin(turn)));
  return [points.map((p) => p[0]), points.map((p) => p[1])];
}

function dynamics(settings) {
  const run = twoTasks(settings), steps = range(STEPS + 1), {rate} = settings, stable = round(run.stable, 4);
  const shown = (x) => score(round(x, 4)), ends = (scores) => `${shown(scores[0])} → ${shown(scores.at(-1))}`;
  const scores = `new task ${ends(run.scoresNew)}, old task ${ends(run.scoresOld)} after ${STEPS} steps`;
  const early = rate > stable ? ` The first steps are above the stable rate ${number(stable)}.` : '';
  const words = run.diverges
    ? `Diverges: above the rate ${number(stable)} each step overshoots further, here it is ${number(rate)}; ${scores}.`
    : `Simulated: ${scores}; equilibrium: new ${shown(run.restNew)}, old ${shown(run.restOld)}.${early}`;
  const cut = (i) => run.path.map((p) => Math.min(Math.max(p[i], -FAR), FAR));
  const looks = {'old task': {color: RED, width: 2, ...marker('o', 6)}, 'new task': {color: BLUE, ...dashed(2), ...marker('s', 6)},
    'path of the weights': {color: INK, width: 1.5, ...marker('.', 4)}, equilibrium: {color: ORANGE, ...marker('x', 11)}};
  const named = (label) => ({label, ...looks[label]}), ticks = range(4).map((i) => [i, `${i}`]);
  const rings = (u, o, look) => SCORES.map((one) => line(...ring(u, o, one), look));
  return {words, legend: {title: `dotted: equilibrium scores; rings: scores ${SCORES.join(', ')}`, entries: entries(looks)}, panels: [
    {title: 'learning and forgetting', high: 288, x: axis('step', -3, STEPS + 3), y: axis('score exp(−loss)', -0.03, 1.05), marks: [
      line(steps, run.scoresOld, named('old task')), line(steps, run.scoresNew, named('new task')),
      line([0, STEPS], [run.restOld, run.restOld], {color: RED, ...dotted(1.2)}),
      line([0, STEPS], [run.restNew, run.restNew], {color: BLUE, ...dotted(1.2)}),
      ...run.diverges ? [text(STEPS / 2, 0.51, 'diverges', 'middle', 'bottom', {bold: true})] : []]},
    {title: 'path on the two valleys', high: 288, x: axis('weight 1', -0.8, 3, ticks), y: axis('weight 2', -0.8, 3, ticks), equal: true, marks: [
      ...rings(run.uOld, run.old, {color: RED, width: 1.3}), ...rings(run.uNew, run.best, {color: BLUE, ...dashed(1.3)}),
      line(cut(0), cut(1), named('path of the weights')), dots([run.old[0]], [run.old[1]], {label: 'old task', color: RED, ...marker('o', 8)}),
      dots([run.best[0]], [run.best[1]], {color: BLUE, ...marker('s', 8)}), dots([run.rest[0]], [run.rest[1]], named('equilibrium'))]}]};
}

// ---- the importance cloud (forgetlab.simulators.importance_cloud) ----

const WEIGHTS = 2000, LOW = 1e-4, HIGH = 1e4;
const GROUPS = {  // colour, marker, and the corner that its name stands in
  'old-critical': [RED, 'o', 1, 0], 'new-critical': [BLUE, 's', 0, 1], shared: [VIOLET, 'D', 1, 1], slack: [GREY, 'x', 0, 0]};

// The draws of numpy's default_rng(seed).standard_normal: nothing is stored, the generator is built again.
function* bits(seed) {  // PCG64 XSL-RR 128/64 (O'Neill 2014), seeded as numpy's SeedSequence does
  let hash = 0x43b0d7e5;
  const scramble = (x, by) => {
    x ^= hash;
    hash = Math.imul(hash, by);
    x = Math.imul(x, hash);
    return x ^ x >>> 16;
  };
  const pool = [seed, 0, 0, 0].map((x) => scramble(x, 0x931e8875));
  for (const i of range(4)) for (const j of range(4)) if (i !== j) {
    const x = Math.imul(0xca01f9dd, pool[j]) - Math.imul(0x4973f715, scramble(pool[i], 0x931e8875));
    pool[j] = x ^ x >>> 16;
  }
  hash = 0x8b51f9dd;
  const words = range(8).map((i) => BigInt(scramble(pool[i % 4], 0x58f38ded) >>> 0));
  const wide = (i) => words[i + 1] << 96n | words[i] << 64n | words[i + 3] << 32n | words[i + 2];
  const step = (x) => BigInt.asUintN(128, x * 0x2360ed051fc65da44385df649fccf645n + increment);
  const increment = BigInt.asUintN(128, wide(4) << 1n | 1n);
  let state = step(increment + wide(0));
  for (;;) {
    state = step(state);
    const mixed = state >> 64n ^ BigInt.asUintN(64, state), turn = state >> 122n;
    yield BigInt.asUintN(64, mixed >> turn | mixed << 64n - turn);  // turned to the right
  }
}

const END = 3.6541528853610088, AREA = 0.004928673233974655;  // of 256 strips under e^(−x²/2), each of this area
const density = (x) => Math.exp(-x * x / 2), EDGES = [AREA / density(END)];
for (let i = 255, x = END; i; i--) {
  EDGES[i] = x;
  x = Math.sqrt(-2 * Math.log(density(x) + AREA / x));
}

function draws(seed, n) {  // the ziggurat of Marsaglia and Tsang 2000
  const source = bits(seed), uniform = () => Number(source.next().value >> 11n) * 2 ** -53;
  const one = () => {
    for (;;) {
      const r = source.next().value, i = Number(r & 255n), x = Number(r >> 9n & 0xfffffffffffffn) * 2 ** -52 * EDGES[i];
      const sign = r >> 8n & 1n ? -1 : 1;
      if (x < (i ? i > 1 ? EDGES[i - 1] : 0 : END)) return sign * x;
      if (i === 0) for (;;) {  // the tail
        const more = -Math.log1p(-uniform()) / END;
        if (-2 * Math.log1p(-uniform()) > more * more) return (r >> 17n & 1n ? -1 : 1) * (END + more);
      }
      const [above, below] = [i > 1 ? density(EDGES[i - 1]) : 1, density(EDGES[i])];
      if ((above - below) * uniform() + below < density(x)) return sign * x;
    }
  };
  return range(n).map(one);
}

const kept = {};  // a seed's draws: sliders ask again and again
function quantile(values, q) {  // between the two nearest, in proportion
  const sorted = [...values].sort((a, b) => a - b), place = q * (values.length - 1), i = Math.floor(place);
  return sorted[i] + (sorted[Math.min(i + 1, values.length - 1)] - sorted[i]) * (place - i);
}

function normalQuantile(q) {  // Newton on Φ(z) = ½ + φ(z)·(z + z³/3 + z⁵/(3·5) + …)
  let z = 0;
  for (const _ of range(10)) {
    let sum = z, term = z;
    for (let k = 3; Math.abs(term) > 1e-17; k += 2) sum += term *= z * z / k;
    const phi = density(z) / Math.sqrt(2 * Math.PI);
    z -= (0.5 + phi * sum - q) / phi;
  }
  return z;
}

function expectedShares(correlation, q) {  // shared = (1 − q)² + (1/2π) ∫₀^{arcsin ρ} exp(−z²/(1 + sin θ)) dθ: midpoints
  const z = normalQuantile(q), above = 1 - q, end = Math.asin(correlation);
  const heights = range(1000).map((i) => Math.exp(-z * z / (1 + Math.sin(end * (i + 0.5) / 1000))));
  const integral = end * heights.reduce((a, b) => a + b) / 1000;
  const shared = Math.min(Math.max(above * above + integral / (2 * Math.PI), 0, 2 * above - 1), above);
  return {'old-critical': above - shared, 'new-critical': above - shared, shared, slack: 1 - 2 * above + shared};
}

function importanceCloud({correlation, quantile: q, seed}) {
  const z = kept[seed] ||= draws(seed, 2 * WEIGHTS);
  const old = z.slice(0, WEIGHTS).map((one) => 10 ** one);
  const fresh = range(WEIGHTS).map((i) => 10 ** (correlation * z[i] + Math.sqrt(1 - correlation ** 2) * z[WEIGHTS + i]));
  const cuts = [quantile(old, q), quantile(fresh, q)];
  const groups = Object.fromEntries(Object.keys(GROUPS).map((name) => [name, {x: [], y: []}]));
  for (const i of range(WEIGHTS)) {
    const [forOld, forNew] = [old[i] > cuts[0], fresh[i] > cuts[1]];
    const group = groups[forOld ? forNew ? 'shared' : 'old-critical' : forNew ? 'new-critical' : 'slack'];
    group.x.push(Math.min(Math.max(old[i], LOW), HIGH));  // those outside the limits stand on the edge
    group.y.push(Math.min(Math.max(fresh[i], LOW), HIGH));
  }
  return {cuts, groups, expected: expectedShares(correlation, q)};
}

function cloud(settings) {
  const {cuts, groups, expected} = importanceCloud(settings), names = Object.keys(GROUPS);
  const share = (name) => percent(groups[name].x.length / WEIGHTS);
  const parts = names.map((name) => `${name} ${share(name)} (expected ${percent(expected[name])})`).join(', ');
  const log = (label) => ({...axis(label, LOW, HIGH), log: true}), inside = (part) => LOW * (HIGH / LOW) ** part;
  return {words: `Of ${WEIGHTS.toLocaleString('en')} simulated weights: ${parts}.`, panels: [{title: 'which weights matter to which task',
    high: 346, wide: true, x: log('importance to the old task (median = 1)'), y: log('to the new task (median = 1)'), marks: [
      ...names.filter((name) => groups[name].x.length).map((name) => dots(groups[name].x, groups[name].y, {color: GROUPS[name][0], opacity: 0.5, ...marker(GROUPS[name][1], 3.5)})),
      rule('x', cuts[0], dashed(1.2)), rule('y', cuts[1], dashed(1.2)),
      ...names.map((name) => {
        const [, , right, top] = GROUPS[name], words = `${name}: ${share(name)}\n(expected ${percent(expected[name])})`;
        return text(inside(right ? 0.985 : 0.015), inside(top ? 0.98 : 0.02), words, right ? 'end' : 'start', top ? 'top' : 'bottom', {halo: true});
      })]}]};
}

// ---- conflict: one step, two losses (forgetlab.simulators.interference) ----

const NOTHING = 5e-7;  // what is shown has six digits
const UPDATES = ['plain', 'A-GEM', 'PCGrad', 'joint'];
const ARROWS = {  // where two coincide both are seen: the wide one lies below
  'gradient, old task': {color: RED, width: 2.5}, 'plain = new gradient': {color: BLUE, width: 6},
  'A-GEM': {color: VIOLET, ...dashed(2)}, PCGrad: {color: ORANGE, width: 5}, joint: {color: INK, ...dotted(2)}};
const BARS = {'old loss': {color: RED}, 'new loss': {color: BLUE, hatch: '///'}};

function interference({angle, curvature, rate}) {
  const phi = angle * (Math.PI / 180), old = [1, 0], fresh = [Math.cos(phi), Math.sin(phi)];
  const clash = Math.min(dot(old, fresh), 0);  // g_old·g_new where they conflict; both have length 1
  const keptNew = plus(fresh, old, -clash), keptOld = plus(old, fresh, -clash);  // g_new − (g_new·g_old / ‖g_old‖²) g_old
  const updates = [fresh, keptNew, plus(keptOld, keptNew), plus(old, fresh)];
  const change = (g) => updates.map((u) => -rate * dot(g, u) + 0.5 * rate ** 2 * curvature * dot(u, u));  // ΔL = −η g·u + ½η²c‖u‖²
  return {old, updates, changeOld: change(old), changeNew: change(fresh), even: Math.max(2 * Math.cos(phi) / curvature, 0)};  // η = 2‖g_old‖cos φ / (c‖g_new‖)
}

function conflict(settings) {
  const {old, updates, ...found} = interference(settings), even = round(Math.min(found.even, 1e9), 6);
  const [changeOld, changeNew] = [found.changeOld, found.changeNew].map((changes) => changes.map((x) => round(x, 6)));
  const said = (x) => Math.abs(x) < NOTHING ? '±0' : `${x > 0 ? '+' : ''}${twoDigits(x)}`.replaceAll('-', '−');
  const told = found.even === Infinity ? 'The plain step harms the old task at no rate.' : even < NOTHING
    ? 'The plain step harms the old task at any rate.' : `The plain step harms the old task above η = ${number(even)}.`;
  const parts = UPDATES.map((label, i) => `${label}: old ${said(changeOld[i])}, new ${said(changeNew[i])}`).join('; ');
  const arrows = [old, ...updates].map(([x2, y2], i) => ({kind: 'arrow', x1: 0, y1: 0, x2, y2, ...entries(ARROWS)[i]}));
  const reach = Math.max(1e-6, ...[...changeOld, ...changeNew].map(Math.abs));  // the longest bar has length 1
  const rows = [[changeOld, 'old loss', -0.2], [changeNew, 'new loss', 0.2]].map(([changes, label, off]) => ({label, wide: changes.map((x) => x / reach),
    at: changes.map((_, i) => i + off), said: changes.map(said)}));
  return {words: `Change of the losses. ${parts}. ${told}`, legend: {title: told, entries: [...entries(ARROWS), ...entries(BARS).map((one) => ({...one, box: true}))]}, panels: [
    {title: 'gradients and updates', high: 245, wide: true, x: axis('weight 1', -1.2, 2.2, [[-1, '−1'], [0, '0'], [1, '1'], [2, '2']]),
      y: axis('weight 2', -0.2, 1.5, [[0, '0'], [1, '1']]), equal: true, marks: arrows.filter(({x2, y2}) => Math.max(Math.abs(x2), Math.abs(y2)) > NOTHING)},
    {title: 'change of the loss', high: 245, wide: true, x: axis('← falls    rises →', -1.6, 1.6, [[0, '0']]),
      y: axis('', 3.6, -0.6, UPDATES.map((label, i) => [i, label])), marks: [
      ...rows.map(({label, wide, at}) => ({kind: 'rects', label, x1: wide.map((x) => Math.min(x, 0)), x2: wide.map((x) => Math.max(x, 0)),
        y1: at.map((y) => y - 0.18), y2: at.map((y) => y + 0.18), ...BARS[label]})),
      rule('x', 0, {width: 1}),
      ...rows.flatMap((row) => row.wide.map((x, i) => text(x + (x >= 0 ? 0.02 : -0.02), row.at[i], row.said[i], x >= 0 ? 'start' : 'end', 'middle', {halo: true})))]}]};
}

Object.assign((globalThis.forgetlab ??= {}).simulated ??= {}, {dynamics, cloud, conflict});
}
