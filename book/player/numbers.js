// The numbers of a drawing: as tables, and which of them changed most from one drawing to the next.
'use strict';
(() => {
  const root = (globalThis.forgetlab ??= {});
  const {escaped, told} = root.plots;
  const FEW = 40;  // rows; of more dots only their number is told
  const QUIET = ['#222222', '#666666'];  // colours of lines that are no result

  const first = (words) => words.split('\n')[0];
  const named = (place, ticks) => ticks?.find(([at]) => at === Math.round(place))?.[1] ?? told(place);

  function table(caption, head, rows) {
    const cells = (row, i) => row.map((cell, j) => j || i < 0 ? `<td>${escaped(cell)}</td>` : `<th scope="row">${escaped(cell)}</th>`).join('');
    return `<table><caption>${escaped(caption)}</caption><tr>${head.map((one) => `<th scope="col">${escaped(one)}</th>`).join('')}</tr>`
      + `${rows.map((row, i) => `<tr>${cells(row, i)}</tr>`).join('')}</table>`;
  }

  function curves(panel, caption) {  // one column for each line, rows by x
    const lines = panel.marks.filter((mark) => (mark.kind === 'line' || mark.kind === 'dots') && !QUIET.includes(mark.color));
    const few = lines.filter((mark) => mark.x.length <= FEW), many = lines.filter((mark) => mark.x.length > FEW);
    const xs = [...new Set(few.flatMap((mark) => mark.x))].filter((one) => one !== null).sort((a, b) => a - b);
    const at = (mark, x) => mark.x.map((own, i) => own === x ? told(mark.y[i]) : null).filter((one) => one !== null).join(', ');
    const body = few.length ? table(caption, [first(panel.x.label) || 'x', ...few.map((mark) => mark.label || panel.y.label || 'y')],
      xs.map((x) => [named(x, panel.x.ticks), ...few.map((mark) => at(mark, x))])) : '';
    return body + many.map((mark) => `<p>${escaped(caption)}: ${mark.x.length.toLocaleString('en')} ${mark.kind === 'dots' ? 'dots' : 'points of a line'}${mark.label ? `, ${escaped(mark.label)}` : ''}.</p>`).join('');
  }

  function boxes(panel, caption) {  // bars lie along the axis that names them
    const sets = panel.marks.filter((mark) => mark.kind === 'rects' && !mark.hollow && !mark.image && mark.x1.length > 1);
    if (!sets.length) return '';
    const lies = Boolean(panel.y.ticks), ticks = lies ? panel.y.ticks : panel.x.ticks;
    const rows = sets[0].x1.map((_, i) => [named(((lies ? sets[0].y1 : sets[0].x1)[i] + (lies ? sets[0].y2 : sets[0].x2)[i]) / 2, ticks),
      ...sets.map((set) => told(length(set, i, lies)))]);
    return table(caption, ['', ...sets.map((set) => set.label || first((lies ? panel.x : panel.y).label) || 'value')], rows);
  }

  const length = (set, i, lies) => {  // from 0, to the left or to the right
    const [low, high] = lies ? [set.x1[i], set.x2[i]] : [set.y1[i], set.y2[i]];
    return Math.abs(low) > Math.abs(high) ? low : high;
  };

  function grid(panel, caption) {  // the words that stand on an image
    if (!panel.marks.some((mark) => mark.image)) return '';
    const across = panel.x.ticks ?? [], up = panel.y.ticks ?? [];
    const word = (x, y) => panel.marks.find((mark) => mark.kind === 'text' && mark.x === x && mark.y === y)?.text ?? '';
    return table(caption, ['', ...across.map(([, name]) => name)], up.map(([y, name]) => [name, ...across.map(([x]) => word(x, y))]));
  }

  const written = (panel) => (panel.lines ?? []).map((row) => `<p>${row.map(({text}) => escaped(text)).join(' ')}</p>`).join('');

  function tables({panels = []}) {
    return panels.map((panel) => {
      if (panel.lines) return written(panel);
      const caption = [first(panel.title), panel.y.label].filter(Boolean).join(', ');
      return grid(panel, caption) || boxes(panel, caption) + curves(panel, caption);
    }).join('');
  }

  // ---- what changed most ----

  function ends({panels = []}) {  // {panel and label: the last value of a line, and where it stands between the panel's limits}
    const found = new Map();
    for (const panel of panels.filter((one) => one.y)) {
      const place = panel.y.log ? Math.log : Number, [low, high] = panel.y.limits.map(place);
      const lines = panel.marks.filter((one) => one.kind === 'line' && !QUIET.includes(one.color));
      for (const mark of lines) {
        const value = mark.y.findLast((one) => one !== null);
        if (value === undefined) continue;
        const name = [first(panel.title).replace(/^(new|watched): /, ''), lines.length > 1 ? mark.label : ''].filter(Boolean).join(', ');
        found.set(name, {value, place: place(value), wide: Math.abs(high - low) || 1});
      }
    }
    return found;
  }

  function change(before, now) {  // in words; '' where nothing can be compared
    const old = ends(before);
    let most = null;
    for (const [name, {value, place, wide}] of ends(now)) {
      const was = old.get(name);
      const share = was ? Math.abs(place - was.place) / Math.max(wide, was.wide) : 0;
      if (share > (most?.share ?? 0.01)) most = {share, name, was: was.value, value};
    }
    return most ? {name: most.name, was: told(most.was), now: told(most.value)} : null;
  }

  root.numbers = {tables, change};
})();
