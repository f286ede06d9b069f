"""The grammar of the embedded language: read from files, expanded into weighted rules, sampled.

A `.grammar` file holds symbols and, indented below each, its weighted alternatives:

    vary n = sg pl                       # a macro: <n> stands for sg or pl, <!n> for the other one
    Report                               # a symbol
      3   the @official.<n> of @city @plan.<n> a @event.sg .
      1~new  x=@first_name met y=@first_name!x . $y.he smiled .

`word` is itself; `Symbol` (capitalised) calls a symbol; `@class.form` draws a word from the lexicon;
`x=@class` draws and remembers, `!x` differs from x, `!x.gender` has another gender than x;
`$x` repeats it and `$x.he` is its pronoun. `-` is the empty sequence. `~new` marks an alternative that
only the unfamiliar end of the similarity dial uses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, product
from math import log
from pathlib import Path
from random import Random

from forgetlab.errors import ForgetlabError, number, one_of, unknown

PRONOUNS = {"he": {"m": "he", "f": "she"}, "him": {"m": "him", "f": "her"}, "his": {"m": "his", "f": "her"}}


@dataclass(frozen=True)
class Word:
    """A word of the lexicon: its text in one form, its entity tag, and what the grammar asks about it."""

    text: str
    tag: str = "O"
    gender: str = ""
    novel: bool = False
    heldout: bool = False


@dataclass(frozen=True)
class Draw:
    """`x=@class.form!y.gender`: a word of a class, remembered as `var`, differing from `other`."""

    words: str
    var: str = ""
    others: tuple[str, ...] = ()
    other_gender: str = ""


@dataclass(frozen=True)
class Refer:
    """`$x` or `$x.he`: the word bound to `var`, or its pronoun."""

    var: str
    form: str = ""

    def text(self, word: Word) -> str:
        return PRONOUNS[self.form][word.gender] if self.form else word.text


@dataclass(frozen=True)
class Call:
    """A symbol, expanded by one of its rules."""

    symbol: str


Item = str | Draw | Refer | Call


@dataclass
class WordClass:
    """The words of a class (one form) with their probabilities."""

    words: list[Word]
    probabilities: list[float]
    cumulative: list[float] = field(init=False)
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.cumulative = list(accumulate(self.probabilities))
        self.index = {word.text: i for i, word in enumerate(self.words)}

    def allowed(self, draw: Draw, bound: dict[str, Word]) -> list[bool] | None:
        """Which words satisfy the draw's constraints; None where there are none."""
        if not (draw.others or draw.other_gender):
            return None
        taken = {bound[other].text for other in draw.others}
        gender = bound[draw.other_gender].gender if draw.other_gender else None
        return [word.text not in taken and word.gender != gender for word in self.words]

    def mass(self, allowed: list[bool]) -> float:
        """The probability of all the words that are allowed."""
        return sum(p for p, ok in zip(self.probabilities, allowed, strict=True) if ok)


@dataclass(frozen=True)
class Rule:
    """One alternative of a symbol with its probability."""

    probability: float
    items: tuple[Item, ...]


@dataclass
class Sample:
    """A text drawn from the grammar: its words, an entity tag for each, the log-probability of its derivation."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    logprob: float = 0.0
    heldout: bool = False

    @property
    def text(self) -> str:
        return " ".join(self.words)


class Grammar:
    """A weighted grammar. `similarity` in [0, 1] is the share of familiar words and alternatives where a
    choice between familiar and novel ones exists; at 1 (the pre-training language) novel ones have probability 0.
    """

    def __init__(self, folder: Path, similarity: float = 1.0) -> None:
        self.similarity = number("similarity", similarity, 0, 1)
        self.classes = _read_lexicon(folder / "lexicon.txt", similarity)
        self.rules: dict[str, list[Rule]] = {}
        for path in sorted(folder.glob("*.grammar")):
            self.rules.update(_read_rules(path, similarity, self.classes))
        self._cumulative = {
            name: list(accumulate(rule.probability for rule in rules)) for name, rules in self.rules.items()
        }
        for name, rules in self.rules.items():
            for rule in rules:
                for item in rule.items:
                    if isinstance(item, Call) and item.symbol not in self.rules:
                        raise ForgetlabError(f"{name}: {unknown('symbol', item.symbol, self.rules)}")

    def vocabulary(self) -> list[str]:
        """Every word that some text may hold, novel ones included, sorted."""
        words = {form for forms in PRONOUNS.values() for form in forms.values()}
        words.update(word.text for cls in self.classes.values() for word in cls.words)
        for rules in self.rules.values():
            words.update(item for rule in rules for item in rule.items if isinstance(item, str))
        return sorted(words - {"|||"})

    def sample(self, symbol: str, rng: Random) -> Sample:
        """One text from `symbol`; `rng` is the only source of randomness."""
        one_of("symbol", symbol, self.rules)
        out = Sample()
        self._expand(symbol, rng, out)
        return out

    def _expand(self, symbol: str, rng: Random, out: Sample) -> None:
        (rule,) = rng.choices(self.rules[symbol], cum_weights=self._cumulative[symbol])
        out.logprob += log(rule.probability)
        bound: dict[str, Word] = {}
        for item in rule.items:
            if isinstance(item, Call):
                self._expand(item.symbol, rng, out)
                continue
            if isinstance(item, str):
                word = Word(item)
            elif isinstance(item, Refer):
                word = Word(item.text(bound[item.var])) if item.form else bound[item.var]
            else:
                word, probability = self._draw(item, bound, rng)
                out.logprob += log(probability)
                if item.var:
                    bound[item.var] = word
            out.words.append(word.text)
            out.tags.append(word.tag)
            out.heldout |= word.heldout

    def _draw(self, draw: Draw, bound: dict[str, Word], rng: Random) -> tuple[Word, float]:
        cls = self.classes[draw.words]
        allowed = cls.allowed(draw, bound)
        total = cls.cumulative[-1] if allowed is None else cls.mass(allowed)
        while True:
            (i,) = rng.choices(range(len(cls.words)), cum_weights=cls.cumulative)
            if allowed is None or allowed[i]:
                return cls.words[i], cls.probabilities[i] / total


def _shares(weights: list[float], novel: list[bool], similarity: float) -> list[float]:
    """Probabilities from weights: the familiar ones share `similarity`, the novel ones the rest."""
    marked = list(zip(weights, novel, strict=True))
    familiar, fresh = (sum(w for w, new in marked if new is kind) for kind in (False, True))
    if not familiar or not fresh:
        return [w / (familiar + fresh) for w in weights]
    return [w / fresh * (1 - similarity) if new else w / familiar * similarity for w, new in marked]


def _read_lexicon(path: Path, similarity: float) -> dict[str, WordClass]:
    """`[class attributes]` heads a list of words, most frequent first; `a/b` gives the forms named by `forms=`."""
    entries: dict[str, list[Word]] = {}
    name, attributes, forms = "", {}, [""]
    for line in _lines(path):
        if head := re.fullmatch(r"\[(\w+)(.*)\]", line.strip()):
            name = head[1]
            pairs = (part.partition("=") for part in head[2].split())
            attributes = {key: value or "yes" for key, _, value in pairs}
            forms = attributes.get("forms", "").split(",")
            continue
        tag, gender = attributes.get("tag", "O"), attributes.get("gender", "")
        for entry in line.split():
            for form, text in zip(forms, entry.split("/"), strict=True):
                word = Word(text, tag, gender, novel="novel" in attributes, heldout="heldout" in attributes)
                entries.setdefault(f"{name}.{form}" if form else name, []).append(word)
    classes = {}
    for key, words in entries.items():
        # Zipf: frequent words and rare ones, as in real text; novel words are ranked on their own
        ranks = Counter[tuple[bool, str]]()
        weights = []
        for word in words:
            ranks[word.novel, word.gender] += 1
            weights.append(1 / (ranks[word.novel, word.gender] + 5))
        probabilities = _shares(weights, [word.novel for word in words], similarity)
        kept = [(w, p) for w, p in zip(words, probabilities, strict=True) if p > 0]
        classes[key] = WordClass([w for w, _ in kept], [p for _, p in kept])
    return classes


def _read_rules(path: Path, similarity: float, classes: dict[str, WordClass]) -> dict[str, list[Rule]]:
    macros: dict[str, list[str]] = {}
    collected: dict[str, list[tuple[float, bool, tuple[Item, ...]]]] = {}
    head = ""
    for line in _lines(path):
        if line.startswith("vary "):
            key, _, values = line.removeprefix("vary ").partition("=")
            macros[key.strip()] = values.split()
        elif not line[0].isspace():
            head = line.strip()
        else:
            weight, _, body = line.strip().partition(" ")
            amount, _, mark = weight.partition("~")
            try:
                share = float(amount)
            except ValueError:
                raise ForgetlabError(f"{path.name}: expected a weight, got {weight!r} in {line!r}") from None
            unfolded = list(_unfold(f"{head} -> {body.strip()}", macros))
            variants = Counter(symbol for symbol, _ in unfolded)  # they share the weight
            for symbol, text in unfolded:
                entry = (share / variants[symbol], mark == "new", _items(text, classes, path))
                collected.setdefault(symbol, []).append(entry)
    rules = {}
    for symbol, alternatives in collected.items():
        probabilities = _shares([a[0] for a in alternatives], [a[1] for a in alternatives], similarity)
        rules[symbol] = [Rule(p, a[2]) for p, a in zip(probabilities, alternatives, strict=True) if p > 0]
    return rules


def _unfold(text: str, macros: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Every way to fill the macros of `head -> body`; `<!n>` takes each value that `<n>` does not have."""
    used = [key for key in macros if f"<{key}>" in text or f"<!{key}>" in text]
    flipped = [key for key in used if f"<!{key}>" in text]
    for values in product(*(macros[key] for key in used)):
        chosen = dict(zip(used, values, strict=True))
        others = [[v for v in macros[key] if v != chosen[key]] for key in flipped]
        for other_values in product(*others):
            filled = text
            for key, value in chosen.items():
                filled = filled.replace(f"<{key}>", value)
            for key, value in zip(flipped, other_values, strict=True):
                filled = filled.replace(f"<!{key}>", value)
            head, _, body = filled.partition(" -> ")
            yield head, body


def _items(text: str, classes: dict[str, WordClass], path: Path) -> tuple[Item, ...]:
    items: list[Item] = []
    for token in text.split():
        if token == "-":
            continue
        if draw := re.fullmatch(r"(?:(\w+)=)?@(\w+(?:\.\w+)?)((?:!\w+(?:\.gender)?)*)", token):
            constraints = draw[3].split("!")[1:]
            if draw[2] not in classes:
                raise ForgetlabError(f"{path.name}: {unknown('word class', draw[2], classes)}")
            genders = [c.removesuffix(".gender") for c in constraints if c.endswith(".gender")]
            others = tuple(c for c in constraints if not c.endswith(".gender"))
            items.append(Draw(draw[2], draw[1] or "", others, genders[0] if genders else ""))
        elif token[0] == "$" and len(token) > 1:
            var, _, form = token[1:].partition(".")
            items.append(Refer(var, form))
        elif token[0].isupper():
            items.append(Call(token))
        else:
            items.append(token)
    return tuple(items)


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].rstrip()
        if line:
            yield line
