// A lab's settings: the line that is copied and pasted, as forgetlab/labs/kit/settings.py has it, and the nearest run.
'use strict';
(() => {
  const root = (globalThis.forgetlab ??= {});
  const LONGEST = 2000;
  const near = (a, b) => a === b || (typeof a === 'number' && typeof b === 'number' && Math.abs(a - b) <= 1e-5 * Math.max(Math.abs(a), Math.abs(b)));

  function short(x) {  // as Python's %g
    if (!Number.isFinite(x)) return String(x);
    if (!x) return '0';
    const [, digits, power] = x.toExponential(5).match(/^(.*?)\.?0*e(.*)$/);
    if (power >= -4 && power < 6) return String(Number(x.toPrecision(6)));
    return `${digits}e${power[0]}${power.slice(1).padStart(2, '0')}`;
  }

  function said(value) {
    if (typeof value === 'boolean') return value ? 'True' : 'False';
    if (typeof value === 'number') return short(value);
    return !value || value !== value.trim() || /[,"\n]/.test(value) ? JSON.stringify(value) : value;
  }

  const training = (lab) => lab.controls.filter((one) => !one.view);
  const toLine = (lab, settings) => `forgetlab ${lab.line} ${lab.lab}: ${training(lab).map(({name}) => `${name}=${said(settings[name])}`).join(', ')}`;

  function alike(a, b) {  // twice the letters that both have in this order, as a share of all
    let row = new Array(b.length + 1).fill(0);
    for (const letter of a) {
      const before = row;
      row = [0];
      for (let j = 0; j < b.length; j++) row.push(letter === b[j] ? before[j] + 1 : Math.max(row[j], before[j + 1]));
    }
    return 2 * row.at(-1) / (a.length + b.length || 1);
  }

  function unknown(what, given, known) {
    const names = [...known].sort(), word = given.slice(0, 200);
    const best = names.reduce((a, b) => alike(word, b) > alike(word, a) ? b : a);
    return Error(`unknown ${what} '${word}'; ${alike(word, best) >= 0.5 ? `did you mean '${best}'?` : `known: ${names.join(', ')}`}.`);
  }

  function fromLine(lab, text) {  // the settings in a line; throws words for what cannot be taken
    const line = text.trim(), controls = new Map(training(lab).map((one) => [one.name, one])), found = {};
    if (line.length > LONGEST) throw Error(`A settings line has at most ${LONGEST} characters, this one has ${line.length.toLocaleString('en')}.`);
    const head = line.match(/^forgetlab (\d+) ([\w-]+):([^]*)$/);
    if (!head) throw Error(`A settings line begins with “forgetlab ${lab.line} ${lab.lab}:”; this one does not.`);
    if (Number(head[1]) !== lab.line) throw Error(`This settings line is of version ${head[1]}; this page reads version ${lab.line}.`);
    if (head[2] !== lab.lab) throw Error(`This settings line is of the lab “${head[2]}”, not of “${lab.lab}”.`);
    for (const part of head[3].match(/[^,"]*(?:"(?:[^"\\]|\\.)*"?[^,"]*)*/g).map((one) => one.trim()).filter(Boolean)) {
      const [, name, equals, value] = part.match(/^([^=]*)(=?)([^]*)$/).map((one) => one.trim());
      if (!controls.has(name)) throw unknown('setting', name, controls.keys());
      if (!equals || !value) throw Error(`The settings line is cut: ${name} has no value.`);
      found[name] = valueOf(name, value, controls.get(name));
    }
    return found;
  }

  function valueOf(name, given, control) {
    let text = given;
    if (text.startsWith('"')) {
      try { text = String(JSON.parse(text)); } catch { throw Error(`The settings line is cut: ${name} has no closing quote.`); }
    }
    if (control.kind === 'choice') {
      if (!control.options.includes(text)) throw unknown(name, text, control.options);
      return text;
    }
    if (control.kind === 'text') return text;
    const value = /^[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text.replaceAll('_', '')) : NaN;
    if (!Number.isFinite(value) || (control.whole && !/^[-+]?[\d_]+$/.test(text))) throw Error(`${name} must be a number, got “${text}”.`);
    const [low, high] = control.range, margin = 1e-6 * Math.max(Math.abs(low), Math.abs(high));
    if (!(value >= low - margin && value <= high + margin)) throw Error(`${name} lies between ${short(low)} and ${short(high)}, got ${text}.`);
    return Math.min(Math.max(value, low), high);
  }

  // ---- the nearest recorded run ----

  function apart(control, a, b) {  // 0 to 1
    if (near(a, b)) return 0;
    if (control.kind !== 'slider') return 1;
    const [low, high, , log] = control.range, place = log ? Math.log : Number;
    return Math.abs(place(a) - place(b)) / (place(high) - place(low) || 1);
  }

  // The run with as many of the values in `must` as can be, then with the fewest others that differ, then the least far.
  function nearest(lab, wanted, must = []) {
    let best = null, least = null;
    for (const run of lab.runs) {
      const cost = [0, 0, 0];
      lab.controls.forEach((control, i) => {
        const far = apart(control, wanted[control.name], control.values[run.at[i]]);
        if (far) cost[must.includes(control.name) ? 0 : 1] += 1;
        cost[2] += far;
      });
      const place = least ? cost.findIndex((one, i) => Math.abs(one - least[i]) > 1e-9) : 0;
      if (!least || (place >= 0 && cost[place] < least[place])) [best, least] = [run, cost];
    }
    return best;
  }

  const settingsOf = (lab, run) => Object.fromEntries(lab.controls.map((control, i) => [control.name, control.values[run.at[i]]]));
  const differing = (lab, a, b) => lab.controls.filter(({name}) => !near(a[name], b[name]));

  root.lines = {toLine, fromLine, nearest, settingsOf, differing, near, short};
})();
