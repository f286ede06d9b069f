// One run, off the page's thread: fills the program with weights and texts, trains, and posts each record.
const PARTS = {start: 0, data: 4, found: 5}, [NEW, TEXT, TAGS] = [0, 1, 2];

onmessage = ({data}) => work(data).catch((error) => postMessage({broken: error.message}));

async function work({module, weights, texts, settings}) {
  const {exports: c} = await WebAssembly.instantiate(module);
  fill(c, PARTS.start, weights);
  fill(c, PARTS.data, texts);
  if (c.wrong()) throw new Error(`text ${c.wrong() - 1} is longer, or has other words, than the program can hold`);
  const began = performance.now();
  for (const record of run(c, settings)) postMessage({record});
  postMessage({seconds: (performance.now() - began) / 1000});
}

function fill(c, part, content) {
  if (c.bytes(part) !== content.length) throw new Error(`${content.length} bytes, the program wants ${c.bytes(part)}`);
  new Uint8Array(c.memory.buffer, c.where(part), content.length).set(content);
}

function* run(c, {method, lam, lr, steps, seed, samples}) {
  c.begin(seed, lr, method === 'none' ? 0 : lam);
  if (method === 'EWC') for (const kind of [TEXT, TAGS])
    if (!c.fisher(kind, samples)) throw new Error(`there are not ${samples} texts to measure the Fisher information on`);
  yield {step: 0, loss: null, ...scores(c), drift: 0};
  const every = Math.max(5, Math.floor(steps / 10));
  let sum = 0, since = 0;
  for (let step = 1; step <= steps; step++) {
    sum += c.step();
    since++;
    if (step % every && step < steps && Number.isFinite(sum)) continue;
    yield {step, loss: sum / since, ...scores(c), drift: c.drift()};
    if (!Number.isFinite(sum)) return;
    sum = since = 0;
  }
}

function scores(c) {
  const of = (kind) => (c.score(kind), new Float64Array(c.memory.buffer, c.where(PARTS.found), 3));
  const share = (kind) => { const [part, whole] = of(kind); return part / whole; };
  const tags = of(TAGS), f1 = 2 * tags[0] / Math.max(1, tags[1] + tags[2]);
  return {accuracy: share(NEW), nll: share(TEXT), f1};
}
