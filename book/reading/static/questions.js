// The questions of a page: a form in the place of the options, judged as forgetlab.teaching.questions judges.
'use strict';
{
  const SIGNS = {right: '✓ Right.', 'not yet': '◐ Not yet.', wrong: '✗ Wrong.'};

  // ---- verdicts ----

  // answer: an option's index, the indices of several, or a number as it was typed → {right, words, given}
  function judge(question, answer) {
    if (question.kind === 'numeric') return judgeNumber(question, String(answer ?? ''));
    const chosen = [answer ?? []].flat().sort((a, b) => a - b), {options} = question;
    if (!chosen.length) return {right: false, words: 'Choose an answer first.', given: false};
    const wanted = options.flatMap((option, i) => option.right ? [i] : []);
    const fits = chosen.every((i) => wanted.includes(i)), right = fits && chosen.length === wanted.length;
    const opening = right ? 'Right.' : fits ? 'Right so far, but not all of it.' : 'Not right.';
    return {right, words: joined([opening, ...chosen.map((i) => options[i].why), right && question.why]), given: true};
  }

  function judgeNumber({answer, tolerance, unit, traps, why}, typed) {
    if (!typed.trim()) return {right: false, words: 'Type a number first.', given: false};
    const values = numbers(typed, unit), near = (target, within) => values.some((one) => Math.abs(one - target) <= within + 1e-12);
    if (!values.length) {
      return {right: false, words: `“${[...typed].slice(0, 40).join('')}” is not a number; write one such as 0.25 or -3.`, given: false};
    }
    if (near(answer, tolerance)) return {right: true, words: joined(['Right.', why]), given: true};
    const trap = traps.find(([wrong]) => near(wrong, tolerance));
    const words = trap ? joined(['Not right.', trap[1]]) : `Not right: ${values[0] > answer ? 'too high' : 'too low'}. Try again.`;
    return {right: false, words, given: true};
  }

  function numbers(typed, unit) {  // in “12,288” the comma may mark thousands, or be the decimal one
    let bare = typed.replace(/[\s_]/g, '').replaceAll('−', '-').replace(/^[×=≈]+/, '');
    const end = unit.replace(/\s/g, '');
    if (end && bare.endsWith(end)) bare = bare.slice(0, -end.length);
    bare = bare.replace(/%+$/, '');
    const readings = [bare.replaceAll(',', '.')];
    if (/^-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$/.test(bare)) readings.push(bare.replaceAll(',', ''));
    return readings.filter((one) => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(one)).map(Number).filter(Number.isFinite);
  }

  const joined = (parts) => parts.filter(Boolean).join(' ');
  const verdict = ({right, words}) => right ? 'right' : words.startsWith('Right so far') ? 'not yet' : 'wrong';

  // ---- forms ----

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // answered is called with each verdict that is one
  function form(box, answered = () => {}) {
    const question = JSON.parse(box.querySelector('script').textContent), {id, kind, options} = question;
    const choice = (option, i) => make('label', {}, make('input', {type: kind === 'single' ? 'radio' : 'checkbox', name: id, value: i}), make('span', {textContent: option.text}));
    const typed = make('input', {type: 'text', name: id, autocomplete: 'off', inputMode: 'text'});
    const inputs = kind === 'numeric' ? [make('label', {className: 'forgetlab-typed'}, typed, ` ${question.unit || 'number'}`)] : options.map(choice);
    const note = make('p', {className: 'forgetlab-verdict'});
    note.setAttribute('role', 'status');
    const hush = () => { note.textContent = ''; delete note.dataset.verdict; };
    const made = make('form', {className: 'forgetlab-form', oninput: hush, onreset: hush},
      make('fieldset', {}, make('legend', {}, box.querySelector('.forgetlab-asked')), ...inputs),
      make('div', {className: 'forgetlab-buttons'}, make('button', {type: 'submit', textContent: 'Answer'}),
        make('button', {type: 'reset', textContent: 'Clear'})), note);
    made.onsubmit = (event) => {
      event.preventDefault();
      const chosen = [...made.querySelectorAll('input:checked')].map((input) => Number(input.value));
      const judged = judge(question, kind === 'numeric' ? typed.value : chosen);
      hush();
      if (!judged.given) { note.textContent = judged.words; return; }
      note.dataset.verdict = verdict(judged);
      const rest = judged.words.replace(/^(Right\.|Not right\.|Not right: )\s*/, '');
      note.append(make('b', {textContent: SIGNS[verdict(judged)]}), ` ${rest && rest[0].toUpperCase() + rest.slice(1)}`);
      answered(judged);
    };
    box.querySelector('ol')?.remove();
    box.prepend(made);
    box.querySelector('summary').textContent = 'Show the answer';
    return {question, reset: () => made.reset()};
  }

  // ---- a quiz: the score of each topic; a question counts by its latest answer ----

  function quiz(box) {
    const score = make('table', {className: 'forgetlab-score'}), clear = make('button', {type: 'button'}), found = new Map();
    const CLEAR = 'Clear all answers', SURE = 'Really clear all?';
    const tell = () => {
      const topics = Object.entries(Object.groupBy(cards, ({question}) => question.topic));
      const total = [...found.values()].filter(Boolean).length;
      score.replaceChildren(make('caption', {textContent: `Score: ${total} of ${cards.length}`}), make('tbody', {}, ...topics.map(([topic, asked]) => {
        const given = asked.filter(({question}) => found.has(question.id)), right = given.filter(({question}) => found.get(question.id));
        return make('tr', {}, make('th', {scope: 'row', textContent: topic}), make('td', {textContent: `${right.length} of ${asked.length} right`}),
          make('td', {textContent: `${asked.length - given.length} unanswered`}));
      })));
      clear.textContent = CLEAR;
    };
    const cards = [...box.querySelectorAll('.forgetlab-question')].map((one) => {
      const card = form(one, ({right}) => { found.set(card.question.id, right); tell(); });
      return card;
    });
    clear.onclick = () => {
      if (clear.textContent === CLEAR) { clear.textContent = SURE; return; }
      cards.forEach(({reset}) => reset());
      found.clear();
      tell();
    };
    box.append(score, make('div', {className: 'forgetlab-buttons'}, clear));
    tell();
  }

  document.querySelectorAll('.forgetlab-quiz').forEach(quiz);
  document.querySelectorAll('.forgetlab-question:not(:has(form))').forEach((box) => form(box));
  (globalThis.forgetlab ??= {records: {}, simulated: {}}).judge = judge;
}
