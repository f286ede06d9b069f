// The page: controls to settings, a worker's records to curves, words and a table.
'use strict';
const $ = (id) => document.getElementById(id), {opening, floor, recorded} = JSON.parse($('facts').textContent);
const LOOKS = {none: 'none', 'L2-SP': 'l2sp', EWC: 'ewc'}, FAINT = 8;  // earlier runs that stay
const RATIO = (x) => x === null || !Number.isFinite(x) ? '–' : !x ? '0' : x < 999.5 ? x.toPrecision(3)
  : x < 1e6 ? Math.round(x).toLocaleString('en') : x.toExponential(1);
const SHARE = (x) => x.toFixed(2);
const CHARTS = [
  {key: 'accuracy', name: 'New: reviews', unit: 'accuracy', told: SHARE, ends: [0, 1]},
  {key: 'perplexity', name: 'Old: general text', unit: 'perplexity', told: RATIO, log: true, floor,
    big: (now, first) => `×${RATIO(now / first)}`},
  {key: 'f1', name: 'Old: names', unit: 'entity F1', told: SHARE, ends: [0, 1]},
  {key: 'drift', name: 'Weights moved', unit: 'distance', told: RATIO, ends: [0, 0]},
];
const SLIDERS = {  // a slider counts stops; its value is of(stop)
  lam: {of: (i) => 10 ** (i / 2), at: (x) => Math.round(2 * Math.log10(x)), low: 1e-4, high: 1e6},
  lr: {of: (i) => 10 ** (i / 4), at: (x) => Math.round(4 * Math.log10(x)), low: 1e-5, high: 1e-1},
  steps: {of: Number, at: Number, low: 20, high: 300},
  seed: {of: Number, at: Number, low: 0, high: 9},
};
let settings = {...opening}, worker = null, shown = null, earlier = [];
let module = null, weights, texts, source;  // of the program; module stays null where it cannot run

// ---- words and numbers ----

function short(x) {  // as Python's %g
  const [, digits, power] = x.toExponential(5).match(/^(.*?)\.?0*e(.*)$/);
  if (power >= -4 && power < 6) return String(Number(x.toPrecision(6)));
  return `${digits}e${power[0]}${power.slice(1).padStart(2, '0')}`;
}
const readable = (x) => x >= 1e4 ? x.toLocaleString('en', {maximumSignificantDigits: 2}) : String(Number(x.toPrecision(2)));
const called = ({method, lam}) => method === 'none' ? 'no pull' : `${method}, λ = ${readable(lam)}`;
const withPerplexity = (record) => ({...record, perplexity: Math.exp(record.nll)});

function told({records, settings: own, end, seconds}) {
  if (!records.length) return end || '';
  const first = records[0], last = records.at(-1);
  const ends = CHARTS.slice(0, 3).map((c) => `${c.unit} ${c.told(first[c.key])} → ${c.told(last[c.key])}`).join(', ');
  const time = seconds ? ` In ${seconds.toFixed(1)} s.` : '';
  return `${called(own)}, ${last.step} steps: ${ends}.${time} ${end || ''}`.trim();
}

// ---- the settings and their line ----

function toLine({method, lam, lr, steps, seed, samples}) {
  return method === 'none' ? `forgetlab 1 watch: lr=${short(lr)}, steps=${steps}, similarity=1, seed=${seed}`
    : `forgetlab 1 pull: lam=${short(lam)}, method=${method}, estimator=auto, samples=${samples}, seed=${seed}`;
}

function fromLine(line) {  // throws words for what cannot be taken
  const head = line.trim().match(/^forgetlab (\d+) ([\w-]+):(.*)$/);
  if (!head) throw Error('A settings line begins with “forgetlab 1 watch:” or “forgetlab 1 pull:”; this one does not.');
  if (head[1] !== '1') throw Error(`This settings line is of version ${head[1]}; this page reads version 1.`);
  const [, , lab, rest] = head, found = {...settings};
  if (lab !== 'watch' && lab !== 'pull') throw Error(`This settings line is of the lab “${lab}”; this page knows watch and pull.`);
  const usual = {similarity: '1', estimator: 'auto'};
  if (lab === 'watch') found.method = 'none'; else Object.assign(found, {lr: opening.lr, steps: opening.steps});
  for (const part of rest.split(',').map((one) => one.trim()).filter(Boolean)) {
    const [name, text] = part.split('=').map((one) => one.trim());
    const names = lab === 'watch' ? ['lr', 'steps', 'similarity', 'seed'] : ['lam', 'method', 'estimator', 'samples', 'seed'];
    if (!names.includes(name)) throw Error(`Unknown setting “${name}”; ${lab} has ${names.join(', ')}.`);
    if (!text) throw Error(`The settings line is cut: ${name} has no value.`);
    if (name in usual) {
      if (text !== usual[name]) throw Error(`${name}=${text} is for the live lab; this page has ${name}=${usual[name]} only.`);
    } else if (name === 'method') {
      if (!['L2-SP', 'EWC'].includes(text)) throw Error(`This page pulls by L2-SP and EWC; “${text}” is in the live lab.`);
      found.method = text;
    } else {
      const value = Number(text), {low, high} = SLIDERS[name] || {low: 20, high: 400};
      if (!(value >= low * (1 - 1e-6) && value <= high * (1 + 1e-6)))
        throw Error(`${name} lies between ${short(low)} and ${short(high)}, got ${text}.`);
      if (name !== 'lam' && name !== 'lr' && value !== Math.round(value)) throw Error(`${name} is a whole number, got ${text}.`);
      found[name] = value;
    }
  }
  return found;
}

function choose(more) {  // take settings, and show them
  settings = {...settings, ...more};
  for (const radio of document.querySelectorAll('[name=method]')) radio.checked = radio.value === settings.method;
  for (const [name, slider] of Object.entries(SLIDERS)) {
    const value = readable(settings[name]), input = $(name);
    input.value = slider.at(settings[name]);
    input.setAttribute('aria-valuetext', value);
    document.querySelector(`output[for=${name}]`).textContent = value;
  }
  $('lam').disabled = settings.method === 'none';
  $('line').value = toLine(settings);
  $('lab').textContent = settings.method === 'none' ? 'watch' : 'pull';
  const apart = settings.method !== 'none' && (settings.lr !== opening.lr || settings.steps !== opening.steps);
  $('fits').textContent = apart ? `The lab pull has no slider for these: it trains ${opening.steps} steps at ${opening.lr}.` : '';
}

// ---- a run ----

function train(own = settings) {
  if (worker) end();  // a run that was not waited for leaves nothing
  else if (shown) earlier = [shown, ...earlier].slice(0, FAINT);
  const run = shown = {settings: {...own}, records: [], live: true};
  const url = URL.createObjectURL(new Blob([source], {type: 'text/javascript'}));
  worker = new Worker(url);
  URL.revokeObjectURL(url);
  worker.onmessage = ({data: {record, seconds, broken}}) => {
    if (record) run.records.push(withPerplexity(record));
    else finish(run, seconds, broken);
    draw();
  };
  worker.onerror = (event) => { finish(run, undefined, event.message); draw(); };
  worker.postMessage({module, weights, texts, settings: run.settings});
  $('stop').disabled = false;
  draw();
}

function finish(run, seconds, broken) {
  const last = run.records.at(-1);
  if (broken) run.end = `The training broke off: ${broken}.`;
  else if (last && last.loss !== null && !Number.isFinite(last.loss))
    run.end = `The loss is no longer finite after step ${last.step}, and the run ended: the learning rate ${short(run.settings.lr)} is too high.`;
  run.seconds = seconds;
  end();
}

function stop() {
  if (shown.records.length) shown.end = 'Stopped.'; else shown = earlier.shift() || null;
  end();
  draw();
}

function end() {
  worker.terminate();
  worker = null;
  $('stop').disabled = true;
}

function reset() {
  if (worker) end();
  [earlier, shown] = [[], {settings: opening, records: recorded.map(withPerplexity)}];
  choose(opening);
  draw();
}

// ---- pictures ----

function draw() {
  const records = shown ? shown.records : [];
  $('source').innerHTML = !shown ? '' : (shown.live ? 'live, in this page' : 'recorded when this book was built') +
    (earlier.length ? '<small>faint: earlier runs</small>' : '');
  $('source').classList.toggle('live', Boolean(shown && shown.live));
  if (worker) $('says').textContent = records.length ? `step ${records.at(-1).step} of ${shown.settings.steps} …`
    : shown.settings.method === 'EWC' ? 'measuring the Fisher information …' : 'starting …';
  else $('says').textContent = shown ? told(shown) : '';
  CHARTS.forEach((chart) => paint(chart, records));
  $('numbers').hidden = !records.length;
  if (records.length) $('numbers').lastElementChild.innerHTML = table(shown);
}

function table(run) {
  const row = (cell, values) => `<tr>${values.map((value) => `<${cell}>${value}</${cell}>`).join('')}</tr>`;
  const rows = run.records.map((r) => row('td', [r.step, r.loss === null ? '–' : RATIO(r.loss), ...CHARTS.map((c) => c.told(r[c.key]))]));
  return `<table><caption>${called(run.settings)}, ${run.live ? 'live, in this page' : 'recorded'}</caption>${row('th',
    ['step', 'loss of the new task', ...CHARTS.map((c) => c.unit)])}${rows.join('')}</table>`;
}

function paint(chart, records) {
  const {key, unit, log} = chart, runs = [...earlier].reverse();
  if (shown) runs.push(shown);
  const box = $(`chart-${key}`), svg = box.querySelector('svg'), width = svg.clientWidth || 300, height = svg.clientHeight || 150;
  const values = runs.flatMap((run) => run.records.map((r) => r[key])).filter(Number.isFinite);
  const most = Math.max(20, ...runs.map((run) => run.settings.steps));
  let low = Math.min(...(chart.ends || [chart.floor]), ...values), high = Math.max(...(chart.ends || [chart.floor]), ...values);
  if (log) [low, high] = [low / (Math.max(high, 4 * low) / low) ** 0.2, Math.max(high, 4 * low) * 1.1];  // room for the floor's words else high += (high - low || 1) * 0.04;
  const left = 40, right = width - 8, top = 8, bottom = height - 20, scale = (v) => log ? Math.log(v) : v;
  const x = (step) => left + (right - left) * step / most;
  const y = (v) => bottom - (bottom - top) * (scale(v) - scale(low)) / (scale(high) - scale(low));
  const parts = ticks(low, high, log).map((v) => `<line class="grid" x1="${left}" x2="${right}" y1="${y(v)}" y2="${y(v)}"/>` +
    `<text x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${readable(v)}</text>`);
  for (const step of [0, most / 2, most])
    parts.push(`<text x="${x(step)}" y="${height - 3}" text-anchor="${step ? step === most ? 'end' : 'middle' : 'start'}">${step ? step : 'step 0'}</text>`);
  if (chart.floor) parts.push(`<line class="floor" x1="${left}" x2="${right}" y1="${y(floor)}" y2="${y(floor)}"/>`,
    `<text x="${right}" y="${y(floor) + 13}" text-anchor="end">floor ${RATIO(floor)}</text>`);
  runs.forEach((run) => {
    const points = run.records.filter((r) => Number.isFinite(r[key])).map((r) => `${x(r.step).toFixed(1)},${y(r[key]).toFixed(1)}`);
    const look = `${LOOKS[run.settings.method]}${run === shown ? ' now' : ''}`;
    parts.push(`<polyline class="${look}" points="${points.join(' ')}"><title>${called(run.settings)}</title></polyline>`);
    if (run === shown && points.length) parts.push(`<circle class="${LOOKS[run.settings.method]}" r="4" cx="${points.at(-1).split(',')[0]}" cy="${points.at(-1).split(',')[1]}"/>`);
  });
  svg.innerHTML = parts.join('');
  const first = records[0], last = records.at(-1), big = box.querySelector('b');
  box.className = shown ? LOOKS[shown.settings.method] : '';
  big.textContent = last ? (chart.big || chart.told)(last[key], first[key]) : '';
  box.querySelector('small').textContent = last ? `${unit} ${chart.told(first[key])} → ${chart.told(last[key])}` : unit;
  svg.setAttribute('aria-label', last ? `${chart.name}: ${unit}, ${chart.told(first[key])} at step 0, ${chart.told(last[key])} at step ${last.step}` : chart.name);
}

function ticks(low, high, log) {
  if (!log) { const by = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((step) => high / step < 4.5) || high;
    return Array.from({length: Math.floor(high / by) + 1}, (_, i) => Number((i * by).toPrecision(6))); }
  const decades = Math.log10(high / low), every = Math.ceil(decades / 4), found = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++)
    for (const lead of decades < 2 ? [1, 3] : [1]) if (p % every === 0 && lead * 10 ** p >= low && lead * 10 ** p <= high) found.push(lead * 10 ** p);
  return found;
}

// ---- opening ----

function bytes(id) {
  const text = atob($(id).textContent), found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

function open() {
  const program = bytes('program');
  if (!window.WebAssembly || !WebAssembly.validate(program)) {
    const words = document.createElement('p');
    words.textContent = 'This browser has no WebAssembly with SIMD, which the training here needs (Chrome 91, Firefox 89, Safari 16.4 have it). What follows is a recorded run.';
    $('still').prepend(words);
    return;
  }
  module = new WebAssembly.Module(program);
  [weights, texts, source] = [bytes('weights'), bytes('texts'), $('worker').textContent];
  $('charts').innerHTML = CHARTS.map(({key, name, unit}) => `<figure id="chart-${key}"><figcaption><span class="name">${name}` +
    `<small>${unit}</small></span><b></b></figcaption><svg role="img"></svg></figure>`).join('');
  $('still').hidden = true;
  $('bench').hidden = false;
  $('controls').onsubmit = (event) => { event.preventDefault(); train(); };
  $('stop').onclick = stop;
  $('reset').onclick = reset;
  for (const radio of document.querySelectorAll('[name=method]')) radio.onchange = () => { choose({method: radio.value}); train(); };
  for (const [name, slider] of Object.entries(SLIDERS)) {
    $(name).oninput = () => choose({[name]: slider.of(Number($(name).value))});
    $(name).onchange = () => train();
  }
  for (const one of document.querySelectorAll('[data-try]')) one.onclick = () => { choose({...opening, ...JSON.parse(one.dataset.try)}); train(); };
  const take = () => {
    try { choose(fromLine($('line').value)); train(); } catch (error) { $('fits').textContent = error.message; }
  };
  $('line').onchange = take;
  $('line').onfocus = () => $('line').select();
  $('line').onkeydown = (event) => { if (event.key === 'Enter') { event.preventDefault(); take(); } };
  reset();
  new ResizeObserver(draw).observe($('charts'));
}

open();
