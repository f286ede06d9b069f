// A lab of the book's page: its controls, its recorded runs (or its simulation) and what they show.
'use strict';
(() => {
  const root = (globalThis.forgetlab ??= {});
  const {plots, lines, numbers} = root, VERSION = 1, OLD_RUNS = 4;
  const {escaped} = plots;
  let made = 0;  // labs of this page, for ids that are their own

  // ---- a control ----

  const readable = (value) => typeof value !== 'number' ? String(value) : plots.told(Number(value.toPrecision(6)));
  const stops = ({values, range: [low, high, step, log] = []}) => values ?? Array.from({length: Math.round((log ? Math.log10(high / low) : high - low) / step) + 1},
    (_, i) => log ? Number((low * 10 ** (i * step)).toPrecision(12)) : Number((low + i * step).toPrecision(12)));

  class Control {
    constructor(about, id, moved) {
      Object.assign(this, {about, id, stops: about.kind === 'choice' ? about.values : stops(about)});
      this.box = document.createElement('div');
      this.box.className = 'fl-control';
      const field = about.kind === 'slider' ? `<input type="range" id="${id}" min="0" max="${this.stops.length - 1}" step="1">`
        : `<select id="${id}">${this.stops.map((value, i) => `<option value="${i}">${escaped(value || '(empty)')}</option>`).join('')}</select>`;
      this.box.innerHTML = `<label for="${id}">${escaped(about.label || about.name)}</label><output for="${id}"></output>${field}<span class="fl-change"></span>`;
      this.field = this.box.querySelector('input, select');
      this.field.addEventListener('input', () => moved(about.name, this.stops[Number(this.field.value)]));
    }

    show(value, within) {  // within: the stops that there are now
      if (this.about.kind === 'slider') {
        this.stops = within;
        this.field.max = within.length - 1;
      }
      const exact = this.stops.findIndex((one) => lines.near(one, value));  // a simulation takes values between its stops
      this.field.value = exact < 0 ? d3.minIndex(this.stops, (one) => Math.abs(one - value)) : exact;
      if (this.about.kind !== 'slider') return;
      this.box.querySelector('output').textContent = readable(value);
      this.field.setAttribute('aria-valuetext', readable(value));
    }

    tell(change) {
      this.box.querySelector('.fl-change').innerHTML = change
        ? `<small>${escaped(change.name)}</small> ${escaped(change.was)} → <b>${escaped(change.now)}</b>` : '';
    }
  }

  // ---- a lab ----

  class Player {
    constructor(element, lab) {
      Object.assign(this, {lab, still: element, earlier: [], drawing: null, widths: [0, 0]});
      this.source = lab.simulated ? 'simulated' : 'recorded';
      this.opening = Object.fromEntries(lab.controls.map(({name, value}) => [name, value]));
      this.controls = lab.controls.filter((one) => lab.simulated || one.values.length > 1)
        .map((one) => new Control(one, `fl-${lab.lab}-${++made}`, (name, value) => this.move({[name]: value}, name)));
      this.box = document.createElement('section');
      this.box.className = 'fl-lab';
      this.box.setAttribute('aria-label', `The lab ${lab.lab}, ${this.source}`);
      this.box.innerHTML = this.frame();
      this.part('.fl-controls').append(...this.controls.map((one) => one.box));
      this.part('.fl-presets').hidden = !this.controls.length;
      this.listen();
      this.choose(this.opening);
      element.before(this.box);
      element.classList.add('fl-still');
      new ResizeObserver(() => this.fit()).observe(this.part('.fl-panels'));
    }

    part(selector) { return this.box.querySelector(selector); }

    frame() {
      const {lab} = this, id = `fl-line-${lab.lab}-${++made}`;
      const presets = Object.entries(lab.presets).filter(([, own]) => this.reachable(own));
      const button = (label, i) => `<button type="button" data-preset="${i}">${escaped(label)}</button>`;
      return `<p class="fl-head"><b class="fl-source">${this.source}</b> ${escaped(lab.intro)}</p>
        <div class="fl-controls"></div>
        <p class="fl-presets">${presets.map(([label]) => button(label, label)).join('')}<button type="button" data-reset>Reset</button></p>
        <p class="fl-says" role="status" aria-live="polite"></p>
        <div class="fl-html"></div><div class="fl-panels"></div><p class="fl-legend fl-all"></p>
        <details class="fl-numbers"><summary>The numbers of this run</summary><div></div></details>
        <div class="fl-line"><label for="${id}">settings</label><input id="${id}" type="text" spellcheck="false" autocomplete="off">
        <button type="button" data-copy>Copy</button></div>
        <p class="fl-open">${this.about()}</p>`;
    }

    within(about) {  // the stops of a slider: where a run was made with the chosen words, such as the method, as they are
      const {lab, settings} = this, i = lab.controls.indexOf(about);
      if (lab.simulated || about.kind !== 'slider') return stops(about);  // all
      const alike = lab.runs.filter((run) => lab.controls.every((one, j) => one.kind === 'slider' || one.view || one.values[run.at[j]] === settings[one.name]));
      return about.values.filter((_, stop) => alike.some((run) => run.at[i] === stop));
    }

    reachable(change) {  // whether a run was made at these values
      const {lab} = this, names = Object.keys(change);
      return lab.simulated || lab.runs.some((run) => names.every((name) => lines.near(change[name], lines.settingsOf(lab, run)[name])));
    }

    about() {
      const {lab, still} = this, {notebook, colab} = still.dataset, fixed = lab.controls.filter((one) => !one.view && !this.controls.some(({about}) => about === one));
      const count = lab.simulated ? '' : `${lab.runs.length.toLocaleString('en')} recorded ${lab.runs.length === 1 ? 'run' : 'runs'}. `;
      const more = fixed.length ? `Only the live lab moves ${fixed.map((one) => escaped(one.label || one.name)).join(', ')}. ` : '';
      const links = [notebook && `<a href="${escaped(notebook)}" download>the lesson as a notebook</a>`, colab && `<a href="${escaped(colab)}">in Colab</a>`].filter(Boolean);
      return `${count}${more}${links.length ? `Open it live: ${links.join(', ')}; paste the settings line there.` : ''}`;
    }

    listen() {
      const line = this.part('.fl-line input');
      line.addEventListener('change', () => this.paste(line.value));
      this.part('.fl-numbers').addEventListener('toggle', () => this.tell());
      this.part('[data-copy]').addEventListener('click', () => this.copy(line));
      this.part('[data-reset]').addEventListener('click', () => { this.earlier = []; this.drawing = null; this.choose(this.opening); });
      for (const one of this.box.querySelectorAll('[data-preset]')) {
        one.addEventListener('click', () => this.move(this.lab.presets[one.dataset.preset]));
      }
    }

    // ---- settings ----

    move(change, name) {
      this.choose({...this.settings, ...change}, Object.keys(change));
      for (const control of this.controls) control.tell(control.about.name === name ? this.changed : null);
    }

    paste(text) {
      let wanted;
      try {
        wanted = lines.fromLine(this.lab, text);
      } catch (error) {
        this.say(`${error.message} Nothing was changed.`);
        return;
      }
      for (const control of this.controls) control.tell(null);
      this.choose({...this.settings, ...wanted}, [], true);
    }

    // Take settings, or those of the run that is nearest to them. must: names whose values are to stay.
    choose(wanted, must = [], pasted = false) {
      const {lab} = this;
      if (lab.simulated) return this.take(wanted, root.simulated[lab.lab](wanted));
      const run = lines.nearest(lab, wanted, must), found = lines.settingsOf(lab, run);
      const others = lines.differing(lab, wanted, found);
      this.take(found, drawingOf(lab, run), this.moved(others, wanted, found, pasted));
    }

    moved(others, wanted, found, pasted) {
      if (!others.length) return '';
      const said = others.map(({name, label}) => `${label || name} ${readable(found[name])}${pasted ? ` (asked: ${readable(wanted[name])})` : ''}`).join(', ');
      return pasted ? `No run was recorded at these settings. This is the nearest one: ${said}.` : `No run was recorded there with the rest as it was; also moved: ${said}.`;
    }

    take(settings, drawing, words = '') {
      const {drawing: last} = this;
      if (last && !this.lab.simulated && lines.differing(this.lab, this.settings, settings).some((one) => !one.view)) {
        const same = (one) => lines.differing(this.lab, one.settings, this.settings).length === 0;
        this.earlier = [{settings: this.settings, panels: last.panels}, ...this.earlier.filter((one) => !same(one))].slice(0, OLD_RUNS);
      }
      this.changed = last ? numbers.change(last, drawing) : null;
      Object.assign(this, {settings, drawing});
      for (const control of this.controls) control.show(settings[control.about.name], this.within(control.about));
      this.part('.fl-line input').value = lines.toLine(this.lab, settings);
      this.say(`${words} ${drawing.words}`.trim());
      this.draw();
    }

    say(words) { this.part('.fl-says').textContent = words; }

    async copy(line) {
      line.select();
      try { await navigator.clipboard.writeText(line.value); } catch { document.execCommand('copy'); }
      this.say('The settings line is copied.');
    }

    // ---- the picture ----

    draw() {
      const {drawing} = this, panels = drawing.panels ?? [];
      this.part('.fl-html').innerHTML = drawing.html ?? '';
      this.frames(panels);
      this.paint();
      this.part('.fl-all').innerHTML = plots.legend(drawing.legend ?? (panels.some((one) => one.legend) ? null : plots.ofMarks(panels)))
        + (this.old().length ? '<span class="fl-title">faint: earlier runs</span>' : '');
      this.part('.fl-numbers').hidden = !panels.length;
      this.tell();
    }

    tell() {  // the numbers, where they are open
      const place = this.part('.fl-numbers');
      if (place.open) place.querySelector('div').innerHTML = numbers.tables(this.drawing);
    }

    frames(panels) {  // a figure for each panel; those of the last drawing stay where there are as many
      const place = this.part('.fl-panels');
      while (place.children.length > panels.length) place.lastChild.remove();
      while (place.children.length < panels.length) {
        place.append(document.createElement('figure'));
        place.lastChild.innerHTML = '<figcaption></figcaption><div class="fl-plot"></div><p class="fl-across"></p><p class="fl-legend"></p>';
      }
      panels.forEach((panel, i) => {
        const [caption, , across, legend] = place.children[i].children;
        place.children[i].classList.toggle('fl-wide', Boolean(panel.wide));
        caption.innerHTML = `<b>${escaped(panel.title)}</b>${panel.y?.label ? ` <small>${escaped(panel.y.label)}</small>` : ''}`;
        across.textContent = panel.x?.label ?? '';
        legend.innerHTML = plots.legend(panel.legend) + ramp(panel.ramp);
      });
    }

    old() { return this.earlier.filter(({settings}) => lines.differing(this.lab, settings, this.settings).length); }

    paint() {
      const place = this.part('.fl-panels'), old = this.old();
      (this.drawing.panels ?? []).forEach((panel, i) => {
        const figure = place.children[i], width = this.widths[panel.wide ? 1 : 0];
        if (panel.lines) figure.querySelector('.fl-plot').innerHTML = written(panel.lines);
        else if (width) figure.querySelector('.fl-plot').replaceChildren(plots.drawn(panel, width, old.map((one) => one.panels?.[i])));
      });
    }

    fit() {  // the width of a panel, and of a wide one
      const own = [...this.part('.fl-panels').children], inner = (one) => one ? one.querySelector('.fl-plot').clientWidth : 0;
      const wide = inner(own.find((one) => one.classList.contains('fl-wide'))), usual = inner(own.find((one) => !one.classList.contains('fl-wide')));
      const now = [usual || wide, wide || usual];
      if (now[0] === this.widths[0] && now[1] === this.widths[1]) return;
      this.widths = now;
      this.paint();
    }
  }

  const drawingOf = (lab, run) => ({
    words: run.words, html: lab.pages[run.html], legend: lab.legends[run.legend],
    panels: run.panels.map((i) => ({...lab.panels[i], marks: lab.panels[i].marks.map((j) => lab.marks[j])})),
  });
  const written = (rows) => rows.map((row) => `<p>${row.map((one) => `<span class="${one.large ? 'fl-large' : ''}" style="color:${plots.color(one.color)}">${escaped(one.text)}</span>`).join(' ')}</p>`).join('');
  const ramp = (found) => !found ? '' : `<span class="fl-ramp">${plots.told(found.low)} ${found.colors.map((one) => `<i style="background:${one}"></i>`).join('')} ${plots.told(found.high)}</span>`;

  // ---- the page ----

  function trouble(lab, name) {  // why a lab cannot be played; '' where it can
    if (!lab) return 'The recorded runs of this lab are not in this book; it shows the picture that it opens on.';
    if (lab.version !== VERSION) return `The recorded runs are of version ${lab.version}, this page plays version ${VERSION}; it shows the picture that the lab opens on.`;
    if (lab.simulated && !root.simulated[name]) return 'This lab’s simulation is not in this book; it shows the picture that it opens on.';
    return '';
  }

  function play(element) {
    const {lab: name} = element.dataset;
    let why = trouble(root.records[name], name);
    try {
      if (!why) return new Player(element, root.records[name]);
    } catch (error) {
      console.error(error);
      why = `This lab cannot be played here (${error.message}); it shows the picture that it opens on.`;
    }
    element.insertAdjacentHTML('beforebegin', `<p class="fl-trouble" role="status">${escaped(why)}</p>`);
    return null;
  }

  function begin() {
    document.body.insertAdjacentHTML('beforeend', plots.patterns);
    addEventListener('beforeprint', () => document.querySelectorAll('.forgetlab-lab details').forEach((one) => { one.open = true; }));
    root.players = [...document.querySelectorAll('.forgetlab-lab')].map(play);
  }

  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', begin);
  else begin();
})();
