// A panel of a Drawing (book/player/drawing.py) as an SVG, by Observable Plot. Colours are the style sheet's variables.
'use strict';
(() => {
  const root = (globalThis.forgetlab ??= {});
  root.records ??= {};
  root.simulated ??= {};
  const INKS = {'#222222': 'ink', '#000000': 'ink', '#666666': 'faint', '#ffffff': 'ground', '#e4e4e4': 'grid'};
  const SHAPES = {  // of a Matplotlib marker: Plot's symbol, and how far it is turned
    o: ['circle'], '.': ['circle'], s: ['square'], '^': ['triangle'], v: ['triangle', 180], D: ['square', 45],
    P: ['cross'], X: ['cross', 45], '*': ['star'], x: ['times'], '+': ['plus'],
  };
  const STROKED = ['times', 'plus'];
  const MANY = 200;  // dots, from which on they are one path, without tips
  const MARKERS = 7;  // on a line

  const color = (hex, fixed) => fixed ? hex : `var(--fl-${INKS[hex] ?? hex.slice(1)}, ${hex})`;
  const escaped = (words) => String(words).replace(/[&<>"]/g, (one) => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'})[one]);

  // ---- numbers at the axes ----

  const formats = [];  // by digits: to make one takes longer than to draw a line
  const digits = (value, most) => (formats[most] ??= new Intl.NumberFormat('en', {maximumSignificantDigits: most})).format(value).replace('-', '−');

  const RAISED = '⁰¹²³⁴⁵⁶⁷⁸⁹';
  const raised = (n) => String(n).replace('-', '⁻').replace(/\d/g, (digit) => RAISED[digit]);

  function atAxis(value) {  // 10,000, and from there on 10⁵ or 2·10⁵
    const size = Math.abs(value);
    if (!value || (size >= 1e-3 && size < 1e5)) return digits(value, 4);
    const power = Math.floor(Math.log10(size) + 1e-9), lead = Number((value / 10 ** power).toPrecision(3));
    return (lead === 1 ? '' : `${lead}·`) + `10${raised(power)}`;
  }

  function logTicks([low, high]) {
    const ends = [Math.min(low, high), Math.max(low, high)], ratio = ends[1] / ends[0];
    if (ratio < 4) return d3.ticks(...ends, 4);
    const step = Math.max(1, Math.round(Math.log10(ratio) / 5)), found = [];
    for (let power = Math.floor(Math.log10(ends[0])); power <= Math.log10(ends[1]); power += step) {
      for (const lead of ratio < 60 ? [1, 2, 5] : [1]) found.push(lead * 10 ** power);
    }
    return found.filter((one) => one >= ends[0] && one <= ends[1]).map((one) => Number(one.toPrecision(6)));
  }

  function scaleOf(axis, few) {
    const type = axis.log ? 'log' : axis.symlog ? 'symlog' : 'linear';
    const ends = [Math.min(...axis.limits), Math.max(...axis.limits)];
    const ticks = axis.ticks?.map(([place]) => place) ?? (axis.log ? logTicks(axis.limits) : d3.ticks(...ends, few));
    const words = new Map(axis.ticks ?? []);
    return {type, domain: axis.limits, ticks, told: (value) => words.get(value) ?? atAxis(value)};
  }

  // ---- marks ----

  function markers({x, y, marker, size = 5, filled = true, edge, ...mark}, fixed, spread) {
    const [symbol, rotate = 0] = SHAPES[marker] ?? ['circle'];
    const places = x.map((_, i) => i).filter((i) => y[i] !== null && x[i] !== null);
    const step = spread ? Math.max(1, Math.ceil((places.length - 1) / MARKERS)) : 1;
    const own = color(mark.color, fixed), stroked = STROKED.includes(symbol);
    return Plot.dot(places.filter((_, i) => i % step === 0 || i === places.length - 1), {
      x: (i) => x[i], y: (i) => y[i], symbol, rotate, r: (marker === '.' ? 0.35 : 0.55) * size,
      fill: stroked ? 'none' : filled ? own : color('#ffffff', fixed),
      stroke: edge && !stroked ? color(edge, fixed) : own, strokeWidth: stroked ? 2 : filled ? (edge ? 1 : 0) : 1.8,
      opacity: mark.opacity ?? 1,
    });
  }

  const PATHS = {  // of a dot of radius r
    circle: (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    square: (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    turned: (x, y, r) => `M${x},${y - r}l${r},${r}l${-r},${r}l${-r},${-r}z`,
    times: (x, y, r) => `M${x - r},${y - r}l${2 * r},${2 * r}m${-2 * r},0l${2 * r},${-2 * r}`,
  };

  function path(d, attributes) {
    const made = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    for (const [name, value] of Object.entries({d, ...attributes})) made.setAttribute(name, value);
    return made;
  }

  function many({x, y, marker, size = 5, ...mark}, fixed) {  // thousands of elements would take too long
    const [symbol, rotate] = SHAPES[marker] ?? ['circle'], stroked = STROKED.includes(symbol), own = color(mark.color, fixed);
    const shape = PATHS[symbol === 'square' && rotate ? 'turned' : symbol] ?? PATHS.circle, places = x.map((_, i) => i).filter((i) => y[i] !== null);
    const look = {fill: stroked ? 'none' : own, stroke: stroked ? own : 'none', opacity: (1 + (mark.opacity ?? 1)) / 2};  // where they lie on each other one path gets no darker
    return (index, scales) => path(places.map((i) => shape(tenth(scales.x(x[i])), tenth(scales.y(y[i])), tenth(0.55 * size))).join(''), look);
  }

  const tenth = (value) => Math.round(10 * value) / 10;

  function line(mark, fixed) {
    const own = Plot.line(mark.x.map((_, i) => i), {
      x: (i) => mark.x[i], y: (i) => mark.y[i] ?? NaN, stroke: color(mark.color, fixed), strokeWidth: mark.width ?? 2,
      strokeDasharray: mark.dash, strokeOpacity: mark.opacity ?? 1, clip: true,
    });
    return mark.marker ? [own, markers(mark, fixed, true)] : [own];
  }

  function rects(mark, fixed) {
    const all = mark.x1.map((_, i) => i), of = (value, i) => Array.isArray(value) ? value[i] : value;
    const box = {x1: (i) => mark.x1[i], x2: (i) => mark.x2[i], y1: (i) => mark.y1[i], y2: (i) => mark.y2[i], clip: true};
    if (mark.hollow) return [Plot.rect(all, {...box, fill: 'none', stroke: color(mark.color, fixed), strokeWidth: mark.width ?? 2})];
    const filled = Plot.rect(all, {...box, fill: (i) => color(of(mark.color, i), fixed || mark.image), fillOpacity: mark.opacity ?? 1});
    const hatched = all.filter((i) => of(mark.hatch, i));
    return hatched.length ? [filled, Plot.rect(hatched, {...box, fill: (i) => `url(#fl-hatch-${HATCHES[of(mark.hatch, i)] ?? 'lines'})`})] : [filled];
  }

  function area(mark, fixed) {
    const look = {fill: color(mark.color, fixed), 'fill-rule': 'evenodd', 'fill-opacity': mark.opacity ?? 1};
    return (index, {x, y}) => path(mark.rings.map((ring) => `M${ring.map(([u, v]) => `${x(u)},${y(v)}`).join('L')}Z`).join(''), look);
  }

  function text(mark, fixed) {
    const halo = mark.halo ? {stroke: color('#ffffff', fixed), strokeWidth: 3, paintOrder: 'stroke'} : {};
    return Plot.text([mark.text], {
      x: [mark.x], y: [mark.y], dx: mark.dx ?? 0, dy: mark.dy ?? 0, textAnchor: mark.anchor ?? 'middle',
      lineAnchor: mark.base ?? 'middle', fill: color(mark.color ?? '#222222', fixed), fontSize: mark.large ? 15 : 12.5,
      fontWeight: mark.bold ? 700 : 400, ...halo,
    });
  }

  const arrow = (mark, fixed) => Plot.arrow([mark], {
    x1: 'x1', y1: 'y1', x2: 'x2', y2: 'y2', stroke: color(mark.color, fixed), strokeWidth: mark.width ?? 2,
    strokeDasharray: mark.dash, headLength: 5, inset: 0,
  });

  const rule = (mark, fixed) => Plot[mark.axis === 'x' ? 'ruleX' : 'ruleY']([mark.at], {
    stroke: color(mark.color, fixed), strokeWidth: mark.width ?? 1, strokeDasharray: mark.dash, strokeOpacity: mark.opacity ?? 1,
  });

  const DRAW = {
    line, rects, area: (mark, fixed) => [area(mark, fixed)], rule: (mark, fixed) => [rule(mark, fixed)],
    dots: (mark, fixed) => [mark.x.length > MANY ? many(mark, fixed) : markers(mark, fixed, false)], text: (mark, fixed) => [text(mark, fixed)],
    arrow: (mark, fixed) => [arrow(mark, fixed)],
  };

  // ---- earlier runs, and what a pointer reads ----

  const IS_RUN = (mark) => !INKS[mark.color] && (mark.kind === 'line' || (mark.kind === 'dots' && mark.x.length < 4));

  function faint(panel, earlier) {
    const present = new Set(panel.marks.map((mark) => JSON.stringify(mark)));
    return earlier.flatMap((old, age) => old.marks.filter((mark) => IS_RUN(mark) && !present.has(JSON.stringify(mark)))
      .flatMap((mark) => DRAW[mark.kind]({...mark, color: '#666666', filled: true, edge: undefined, dash: undefined, width: 1.2,
        marker: mark.kind === 'dots' ? mark.marker : undefined, opacity: Math.max(0.15, 0.5 - 0.1 * age)})));
  }

  function tips(panel) {
    const points = panel.marks.filter((mark) => (mark.kind === 'line' || mark.kind === 'dots') && !INKS[mark.color] && mark.x.length < MANY)
      .flatMap(({label, x, y}) => x.map((own, i) => ({x: own, y: y[i], label})).filter((one) => one.y !== null && one.x !== null));
    const said = ({x, y, label}) => `${label ? `${label}\n` : ''}${panel.x.label.split('\n')[0] || 'x'} ${told(x)}\n${panel.y.label || 'y'} ${told(y)}`;
    return points.length ? [Plot.tip(points, Plot.pointer({x: 'x', y: 'y', title: said, fill: 'var(--fl-ground)', stroke: 'var(--fl-faint)'}))] : [];
  }

  const told = (value) => typeof value !== 'number' ? '–' : Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? atAxis(Number(value.toPrecision(3)))
    : digits(value, Math.abs(value) < 1000 ? 3 : 6);

  // ---- a panel ----

  const widest = (words) => Math.max(0, ...words.map((one) => Math.max(...String(one).split('\n').map((part) => part.length))));

  function united(axis, others) {  // limits that hold earlier runs too
    const all = [axis, ...others].map((one) => one.limits), upside = axis.limits[0] > axis.limits[1];
    const low = Math.min(...all.flat()), high = Math.max(...all.flat());
    return {...axis, limits: upside ? [high, low] : [low, high]};
  }

  function drawn(panel, width, earlier = []) {
    const like = panel.fixed ? [] : earlier.filter((old) => old?.x && old.x.label === panel.x.label && old.y.label === panel.y.label && old.y.log === panel.y.log);
    const shown = {...panel, x: united(panel.x, like.map((old) => old.x)), y: united(panel.y, like.map((old) => old.y))}, fixed = Boolean(panel.fixed);
    const x = scaleOf(shown.x, Math.min(6, width / 70)), y = scaleOf(shown.y, 5);
    const high = panel.equal ? {aspectRatio: 1} : {height: Math.max(150, panel.high ?? 180)};
    const rows = Math.max(1, ...x.ticks.map((one) => String(x.told(one)).split('\n').length));
    return labelled(panel, Plot.plot({
      width, ...high, marginLeft: Math.max(30, 14 + 7 * widest(y.ticks.map(y.told))), marginRight: Math.max(14, 4 * widest([x.told(x.ticks.at(-1) ?? 0)])), marginTop: 10, marginBottom: 12 + 14 * rows,
      style: {background: 'transparent', color: 'var(--fl-ink)', fontSize: '12px', overflow: 'visible'},
      x: {type: x.type, domain: x.domain, label: null}, y: {type: y.type, domain: y.domain, label: null},
      marks: [
        fixed ? [] : Plot.gridX(x.ticks, {stroke: 'var(--fl-grid)', strokeOpacity: 1}),
        fixed ? [] : Plot.gridY(y.ticks, {stroke: 'var(--fl-grid)', strokeOpacity: 1}),
        Plot.axisX(x.ticks, {text: x.ticks.map(x.told), tickSize: 3, label: null}),
        Plot.axisY(y.ticks, {text: y.ticks.map(y.told), tickSize: 3, label: null}),
        ...faint(panel, like), ...panel.marks.flatMap((mark) => DRAW[mark.kind]?.(mark, fixed) ?? []), ...tips(shown),
      ],
    }));
  }

  function labelled(panel, svg) {  // a picture with one name; its numbers are in a table
    for (const one of svg.querySelectorAll('[aria-label], [aria-description]')) ['aria-label', 'aria-description'].forEach((name) => one.removeAttribute(name));
    svg.setAttribute('role', 'img');
    svg.setAttribute('aria-label', [panel.title, panel.y.label].filter(Boolean).join(', ') || 'a plot');
    return svg;
  }

  // ---- looks, for the legend ----

  const HATCHES = {'//': 'lines', '..': 'dots', xx: 'cross'};
  const PATTERNS = `<svg class="fl-patterns" aria-hidden="true" width="0" height="0"><defs>
    <pattern id="fl-hatch-lines" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0,0V6"/></pattern>
    <pattern id="fl-hatch-cross" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0,0V6M0,0H6"/></pattern>
    <pattern id="fl-hatch-dots" width="6" height="6" patternUnits="userSpaceOnUse"><path d="M2,3H4"/></pattern></defs></svg>`;

  function swatch(look) {
    if (look.box) {
      const inner = look.hatch ? `<rect x="3" y="2" width="20" height="10" fill="url(#fl-hatch-${HATCHES[look.hatch] ?? 'lines'})"/>` : '';
      return `<svg width="26" height="14" aria-hidden="true"><rect x="3" y="2" width="20" height="10" fill="${color(look.color)}"/>${inner}</svg>`;
    }
    const stroke = look.width ? `<path d="M1,7H25" stroke="${color(look.color)}" stroke-width="${look.width}" stroke-dasharray="${look.dash ?? ''}"/>` : '';
    if (!look.marker) return `<svg width="26" height="14" aria-hidden="true">${stroke}</svg>`;
    const [symbol, rotate = 0] = SHAPES[look.marker] ?? ['circle'], stroked = STROKED.includes(symbol);
    const shape = d3[`symbol${symbol[0].toUpperCase()}${symbol.slice(1)}`], edge = look.edge ? color(look.edge) : color(look.color);
    const fill = stroked ? 'none' : look.filled === false ? 'var(--fl-ground)' : color(look.color);
    return `<svg width="26" height="14" aria-hidden="true">${stroke}<path transform="translate(13,7) rotate(${rotate})" d="${d3.symbol(shape, 44)()}" fill="${fill}" stroke="${edge}" stroke-width="${stroked ? 2 : 1}"/></svg>`;
  }

  function legend(found) {
    if (!found?.entries?.length) return '';
    const title = found.title ? `<span class="fl-title">${escaped(found.title)}</span>` : '';
    return title + found.entries.map((look) => `<span class="fl-look">${swatch(look)}${escaped(look.label)}</span>`).join('');
  }

  const ofMarks = (panels) => {  // a legend for a drawing that brings none
    const found = new Map();
    for (const mark of panels.flatMap((panel) => panel.marks)) {
      if (mark.label && !found.has(mark.label)) found.set(mark.label, {...mark, ...(mark.kind === 'rects' || mark.kind === 'area' ? {box: true} : {})});
    }
    return found.size > 1 ? {entries: [...found.values()]} : null;
  };

  root.plots = {drawn, legend, ofMarks, color, escaped, told, patterns: PATTERNS};
})();
