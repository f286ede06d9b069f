// The terms of a text: their definition beside them, at the reader's level, on hover, tap or focus.
'use strict';
{
  const KEY = 'forgetlab.level', LEVELS = ['beginner', 'practitioner', 'expert'], MARGIN = 8;  // px to the screen's edge
  const {glossary} = window.forgetlab, TERM = 'a.forgetlab-term', SLOW = 150, SLOWER = 300;  // ms to show, to hide
  const place = (term) => term.dataset.place ||= decodeURIComponent(term.hash.slice(1));
  let level = stored(), shown = null, timer = 0, touched = false;

  // ---- the level ----

  function stored() {
    try {
      const found = localStorage.getItem(KEY);
      return LEVELS.includes(found) ? found : LEVELS[0];
    } catch { return LEVELS[0]; }  // a browser may refuse storage
  }

  function choose(chosen) {
    level = chosen;
    try { localStorage.setItem(KEY, level); } catch { /* then for this page only */ }
    document.documentElement.dataset.forgetlabLevel = level;
    hide();
    for (const select of document.querySelectorAll('.forgetlab-level select')) select.value = level;
    for (const term of document.querySelectorAll(TERM)) offer(term, LEVELS.indexOf(level) <= LEVELS.indexOf(glossary[place(term)]?.upto));
  }

  function offer(term, offered) {  // what is plain to a level is plain text
    term.dataset.href ||= term.getAttribute('href');
    if (offered) term.setAttribute('href', term.dataset.href); else term.removeAttribute('href');
    const entry = term.closest('.forgetlab-words li');
    if (entry) entry.hidden = !offered;
  }

  function chooser() {
    const label = document.createElement('label'), options = LEVELS.map((one) => `<option>${one}</option>`).join('');
    label.className = 'forgetlab-level';
    label.innerHTML = `<span>Terms for: </span><select>${options}</select>`;
    label.lastChild.onchange = (event) => choose(event.target.value);
    return label;
  }

  // ---- the tip ----

  const tip = document.createElement('div');
  tip.id = 'forgetlab-tip';
  tip.hidden = true;
  tip.setAttribute('role', 'tooltip');

  function show(term, x) {
    if (shown === term) return;
    hide();
    const told = glossary[place(term)], screen = document.documentElement.clientWidth;
    tip.innerHTML = `<p><b>${told.term}</b> <small>${level}</small></p><p>${told[level]}</p>${told.source ? `<p><small>${told.source}</small></p>` : ''}`;
    tip.hidden = false;
    shown = term;
    term.setAttribute('aria-describedby', tip.id);
    const lines = [...term.getClientRects()];  // a term may be broken over two
    const line = lines.find(({left, right}) => left <= x && x <= right) || lines[0], height = tip.offsetHeight;
    const below = line.bottom + 2, above = line.top - 2 - height;
    const top = below + height > innerHeight && above > 0 ? above : below;
    tip.style.left = `${scrollX + Math.max(MARGIN, Math.min(line.left, screen - MARGIN - tip.offsetWidth))}px`;
    tip.style.top = `${scrollY + top}px`;
  }

  function hide() {
    clearTimeout(timer);
    if (shown) shown.removeAttribute('aria-describedby');
    tip.hidden = true;
    shown = null;
  }

  function over(event) {  // it stays while it is pointed at, or its term is
    if (event.pointerType === 'touch') return;
    const term = event.target.closest?.(`${TERM}[href]`);
    clearTimeout(timer);
    if (term && glossary[place(term)]) timer = setTimeout(show, SLOW, term, event.clientX);
    else if (shown && !tip.contains(event.target) && shown !== document.activeElement) timer = setTimeout(hide, SLOWER);
  }

  function click(event) {  // the first tap shows, the second follows the link
    const term = event.target.closest?.(`${TERM}[href]`);
    if (!touched || !term || shown === term || !glossary[place(term)]) return;
    event.preventDefault();
    show(term, event.clientX);
  }

  document.addEventListener('pointerover', over);
  document.addEventListener('click', click);
  document.addEventListener('pointerdown', (event) => {
    touched = event.pointerType === 'touch';
    if (shown && !tip.contains(event.target) && !shown.contains(event.target)) hide();
  });
  document.addEventListener('focusin', ({target}) => {
    if (target.matches(`${TERM}[href]:focus-visible`) && glossary[place(target)]) show(target);
  });
  document.addEventListener('focusout', ({target}) => { if (target === shown && !tip.matches(':hover')) hide(); });
  document.addEventListener('keydown', ({key}) => { if (key === 'Escape') hide(); });

  document.body.append(tip);
  if (document.querySelector(`${TERM}, .forgetlab-levels`)) {
    document.querySelector('.article-header-buttons')?.prepend(chooser());
    for (const words of document.querySelectorAll('.forgetlab-words')) words.before(chooser());
  }
  choose(level);
}
