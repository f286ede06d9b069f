"""The glossary's terms in a lesson's running text: the first of each in a section becomes a link to the glossary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from docutils import nodes

from book.reading.glossary import place
from forgetlab.teaching.glossary import Term, glossary

CLASS = "forgetlab-term"
# how a text says a term, where it is not as the glossary's entry begins, or as its brackets have it
SAID = {
    "A-GEM": ("A-GEM", "AGEM"),
    "attention (query, key, value)": ("attention",),
    "cosine similarity": ("cosine similarity", "cosine"),
    "demonstration (SFT)": ("demonstration", "SFT"),
    "discriminative (layer-wise) rates": ("discriminative rate", "layer-wise rate", "discriminative learning rate"),
    "entities (NER)": ("entity", "entities", "NER"),
    "experience replay": ("experience replay", "replay"),
    "fine-tuning": ("fine-tuning", "fine-tune", "fine-tuned"),
    "flips (items lost and gained)": ("flips", "flip"),
    "floor (of a perplexity)": ("floor",),
    "fluency and coherence": ("fluency", "coherence"),
    "gradient interference (conflict)": ("gradient interference", "interference", "conflict"),
    "GRPO (group advantages)": ("GRPO", "group advantage"),
    "KL direction (forward, reverse)": ("KL direction", "forward KL", "reverse KL", "direction of the KL"),
    "learning dynamics": ("learning dynamics", "dynamics"),
    "linear CKA": ("linear CKA", "CKA"),
    "live, cached, simulated": ("live", "cached", "simulated"),
    "logit and softmax": ("logit", "softmax"),
    "old-critical, new-critical, shared, slack": ("old-critical", "new-critical", "slack"),
    "on-policy and off-policy": ("on-policy", "off-policy"),
    "pre-training": ("pre-training", "pre-trained"),
    "rare words": ("rare word",),
    "transfer matrix R": ("transfer matrix",),
    "unreadable or overwritten": ("unreadable or overwritten", "unreadable"),
    "zero-shot and few-shot": ("zero-shot", "few-shot"),
}
# words that mean something else in most texts: terms only in the lessons that the glossary names
EVERYDAY = re.compile(
    "advantage|anchor|attention|baseline|cached|conflict|dynamics|flips?|floor|head|importance|interference|live|patience|"
    "policy|prior|probe|rank|record|reward|savings|simulated|slack|spread|stability|step|task|temperature|trade-off|unreadable"
)
OUTSIDE = (
    *(nodes.Titular, nodes.literal, nodes.literal_block, nodes.reference, nodes.math, nodes.math_block, nodes.raw),
    *(nodes.thead, nodes.caption, nodes.figure, nodes.image, nodes.footnote, nodes.citation, nodes.comment),
)


def said(term: Term) -> tuple[str, ...]:
    """The words that stand for a term in a text, in the singular where they have one."""
    if term.term in SAID:
        return SAID[term.term]
    bare, _, bracket = term.term.removesuffix(")").partition(" (")
    return (bare, bracket) if bracket else (bare,)


def plural(words: str) -> str:
    """Of the last word."""
    if re.search("[^aeiou]y$", words):
        return f"{words[:-1]}ies"
    return f"{words}es" if re.search("(s|x|sh|ch)$", words) else f"{words}s"


@cache
def _known(lesson: str) -> tuple[re.Pattern[str], dict[str, Term]]:
    """A pattern of all that is said in a lesson, the longest first, and the term of each, written as `_key` has it."""
    found: dict[str, Term] = {}
    for term in glossary():
        for words in said(term):
            if lesson in term.lessons or not EVERYDAY.fullmatch(words):
                found |= {_key(words): term, _key(plural(words)): term}
    either = "|".join(_pattern(words) for words in sorted(found, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{either})(?![\w-])"), found


def _key(words: str) -> str:
    """Spelt in one way: hyphens as spaces, small letters unless there is a name in it."""
    plain = _spelt(words)
    return plain if re.search("[A-Z]", words) else plain.lower()


def _spelt(words: str) -> str:
    return re.sub(r"[-‑–\s]+", " ", words.replace("’", "'"))


def _pattern(key: str) -> str:
    words = re.escape(key).replace(r"\ ", r"[-‑–\s]").replace("'", "['’]")
    return words if re.search("[A-Z]", key) else f"(?i:{words})"


def _term(found: dict[str, Term], words: str) -> Term:
    key = _spelt(words)
    return found[key] if key in found else found[key.lower()]


def mark(doctree: nodes.document, lesson: str, page: str) -> None:
    """Make links of the terms. page: the address of the glossary, as seen from the lesson."""
    pattern, found = _known(lesson)
    seen: dict[int, set[str]] = {}
    for text, section in [*_running(doctree)]:
        met, parts, end = seen.setdefault(id(section), set()), [], 0
        for one in pattern.finditer(text):
            term = _term(found, one[0])
            if term.term not in met:
                met.add(term.term)
                link = nodes.reference("", one[0], refuri=f"{page}#{place(term)}", internal=True, classes=[CLASS])
                parts += [nodes.Text(text[end : one.start()]), link]
                end = one.end()
        if parts:
            text.parent.replace(text, [part for part in (*parts, nodes.Text(text[end:])) if part.astext()])


def _running(doctree: nodes.document) -> Iterator[tuple[nodes.Text, nodes.Element]]:
    """(text, its section below the lesson's title) of all running text."""
    for text in doctree.findall(nodes.Text):
        above, node = [], text.parent
        while node is not None:
            above.append(node)
            node = node.parent
        if not any(isinstance(one, OUTSIDE) or "cell" in one.get("classes", ()) for one in above):
            sections = [one for one in above if isinstance(one, nodes.section)]
            yield text, sections[-2] if len(sections) > 1 else doctree
