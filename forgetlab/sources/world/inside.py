"""What can only be estimated for English is exact here: the probability of any text, the entropy of the source.

The inside algorithm, top-down and memoised: inside(symbol, i) maps each end j to the summed probability of
all derivations of words[i:j] from the symbol. A rule's variables are bound as the words are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from math import inf, log

import numpy as np

from forgetlab.errors import one_of
from forgetlab.sources.world.grammar import PRONOUNS, Call, Draw, Grammar, Item, Refer, Rule, Word

Bound = tuple[tuple[str, Word], ...]
Spans = dict[int, float]

# Word sequences may hold None, which matches every word.
Words = Sequence[str | None]


class Parser:
    """Exact probabilities under a grammar.

    grammar: the source. All results are in nats (natural logarithms).
    """

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self._rules = dict(grammar.rules)
        self._first = self._first_words()
        self._by_first: dict[str, dict[str, list[Rule]]] = {}
        for symbol in self._rules:
            self._index(symbol)

    def logprob(self, words: Words, symbol: str = "General") -> float:
        """log p(words) under `symbol`, -inf where the text is not in the language.

        words: the text's words in order; None matches any one word, so that a sum over a gap is one call.
        """
        one_of("symbol", symbol, self._rules)
        chart: dict[tuple[str, int], Spans] = {}
        p = self._inside(symbol, 0, words, chart).get(len(words), 0.0)
        return log(p) if p > 0 else -inf

    def accepts(self, words: Words, symbol: str = "Anything") -> bool:
        """Whether the whole text is in the language of `symbol`."""
        return self.logprob(words, symbol) > -inf

    def accepts_sentence(self, words: Words) -> bool:
        """Whether a single sentence, its full stop included, can stand in some text of the language."""
        return self.logprob(words, self._sentences) > -inf

    def conditional(self, words: Sequence[str], position: int, symbol: str = "General") -> float:
        """log p(words[position] | all the other words), the best any masked model can do on that gap.

        -inf where the word cannot stand there.
        """
        gap = [*words[:position], None, *words[position + 1 :]]
        whole = self.logprob(words, symbol)
        return whole - self.logprob(gap, symbol) if whole > -inf else -inf

    def entropy(self, symbol: str = "General") -> float:
        """Entropy of a text in nats: H(A) = Σ_r p_r (−log p_r + H(draws of r) + Σ_calls H(call)).

        It is the derivation entropy; it equals the text's entropy because the grammar is unambiguous
        (tested on samples: the inside probability of a text is the probability of its derivation).
        """
        return self._total(symbol)[0]

    def expected_length(self, symbol: str = "General") -> float:
        """Expected number of words of a text, without an end mark."""
        return self._total(symbol)[1]

    def _total(self, symbol: str) -> tuple[float, float]:
        one_of("symbol", symbol, self.grammar.rules)
        return self._totals[symbol]

    # -- inside ----------------------------------------------------------------------------------

    def _inside(self, symbol: str, i: int, words: Words, chart: dict[tuple[str, int], Spans]) -> Spans:
        if (symbol, i) in chart:
            return chart[symbol, i]
        word = words[i] if i < len(words) else ""
        by_first = self._by_first[symbol]
        rules = self._rules[symbol] if word is None else by_first.get(word, by_first[""])
        spans: Spans = defaultdict(float)
        for rule in rules:
            for end, p in self._match(rule, i, words, chart).items():
                spans[end] += rule.probability * p
        chart[symbol, i] = spans
        return spans

    def _match(self, rule: Rule, start: int, words: Words, chart: dict[tuple[str, int], Spans]) -> Spans:
        states: dict[tuple[int, Bound], float] = {(start, ()): 1.0}
        for item in rule.items:
            following: defaultdict[tuple[int, Bound], float] = defaultdict(float)
            for (i, bound), p in states.items():
                if isinstance(item, Call):
                    for end, q in self._inside(item.symbol, i, words, chart).items():
                        following[end, bound] += p * q
                elif i < len(words):
                    for new_bound, q in self._read(item, words[i], bound):
                        following[i + 1, new_bound] += p * q
            states = following
            if not states:
                return {}
        spans: Spans = defaultdict(float)
        for (i, _), p in states.items():
            spans[i] += p
        return spans

    def _read(self, item: Item, word: str | None, bound: Bound) -> list[tuple[Bound, float]]:
        """The ways in which one item may read one word (None: any), with their probabilities."""
        if isinstance(item, str):
            return [(bound, 1.0)] if word is None or word == item else []
        if isinstance(item, Refer):
            text = item.text(dict(bound)[item.var])
            return [(bound, 1.0)] if word is None or word == text else []
        assert isinstance(item, Draw)
        cls = self.grammar.classes[item.words]
        if word is not None and word not in cls.index:
            return []
        allowed = cls.allowed(item, dict(bound))
        total = 1.0 if allowed is None else cls.mass(allowed)
        if word is None and not item.var:
            return [(bound, 1.0)]
        choices = range(len(cls.words)) if word is None else [cls.index[word]]
        return [
            ((*bound, (item.var, cls.words[k])) if item.var else bound, cls.probabilities[k] / total)
            for k in choices
            if allowed is None or allowed[k]
        ]

    # -- what a rule may begin with: lets inside() skip nearly all alternatives ---------------------

    def _starts(self, rule: Rule, first: dict[str, set[str]]) -> set[str]:
        """The words that a rule may begin with; "" among them where it may be empty."""
        words: set[str] = set()
        for item in rule.items:
            if isinstance(item, str):
                return words | {item}
            if isinstance(item, Draw):
                return words | set(self.grammar.classes[item.words].index)
            if isinstance(item, Refer):
                raise ValueError("a rule refers to a word before drawing it")
            words |= first[item.symbol] - {""}
            if "" not in first[item.symbol]:
                return words
        return words | {""}

    def _first_words(self) -> dict[str, set[str]]:
        """`_starts` of every symbol: the least fixed point."""
        first: dict[str, set[str]] = {symbol: set() for symbol in self._rules}
        before = None
        while first != before:
            before = first
            first = {s: {w for rule in rules for w in self._starts(rule, before)} for s, rules in self._rules.items()}
        return first

    def _index(self, symbol: str) -> None:
        starts = [(rule, self._starts(rule, self._first)) for rule in self._rules[symbol]]
        words = {"", *(word for _, firsts in starts for word in firsts)}
        # a rule that may be empty belongs in every list, in rule order
        self._by_first[symbol] = {
            word: [rule for rule, firsts in starts if "" in firsts or word in firsts] for word in words
        }

    # -- single sentences --------------------------------------------------------------------------

    @cached_property
    def _sentences(self) -> str:
        """A symbol for every sentence of every rule: rules cut at their full stops, variables set free."""
        name = "(sentence)"
        pieces: set[tuple[Item, ...]] = set()
        for symbol in self._reachable("Anything"):
            for rule in self.grammar.rules[symbol]:
                drawn = {item.var: item for item in rule.items if isinstance(item, Draw)}
                piece: list[Item] = []
                for item in rule.items:
                    piece.append(item)
                    if item in (".", "?"):
                        pieces.update(_freed(piece, drawn))
                        piece = []
        self._rules[name] = [Rule(1 / len(pieces), piece) for piece in sorted(pieces, key=repr)]
        self._index(name)
        return name

    def _reachable(self, symbol: str) -> set[str]:
        found, todo = {symbol}, [symbol]
        while todo:
            calls = {i.symbol for rule in self.grammar.rules[todo.pop()] for i in rule.items if isinstance(i, Call)}
            todo += sorted(calls - found)
            found |= calls
        return found

    # -- entropy and length ------------------------------------------------------------------------

    @cached_property
    def _totals(self) -> dict[str, tuple[float, float]]:
        """(entropy, expected words) of each symbol: x = own + calls · x, solved for x."""
        place = {symbol: i for i, symbol in enumerate(self.grammar.rules)}
        own, calls = np.zeros((len(place), 2)), np.zeros((len(place), len(place)))
        for i, rules in enumerate(self.grammar.rules.values()):
            for rule in rules:
                p = rule.probability
                words = sum(not isinstance(item, Call) for item in rule.items)
                own[i] += p * (-log(p) + self._draws_entropy(rule)), p * words
                for item in rule.items:
                    if isinstance(item, Call):
                        calls[i, place[item.symbol]] += p
        totals = np.linalg.solve(np.eye(len(place)) - calls, own)
        return {symbol: (float(totals[i, 0]), float(totals[i, 1])) for symbol, i in place.items()}

    def _draws_entropy(self, rule: Rule) -> float:
        """Σ H(draw | earlier draws), exact: every assignment of the variables that constrain later draws."""
        constrainers = {v for d in rule.items if isinstance(d, Draw) for v in (*d.others, d.other_gender) if v}
        assignments: list[tuple[dict[str, Word], float]] = [({}, 1.0)]
        total = 0.0
        for item in rule.items:
            if not isinstance(item, Draw):
                continue
            cls = self.grammar.classes[item.words]
            words = list(zip(cls.words, cls.probabilities, strict=True))
            following = []
            for bound, weight in assignments:
                allowed = cls.allowed(item, bound)
                left = [(w, p) for k, (w, p) in enumerate(words) if allowed is None or allowed[k]]
                mass = sum(p for _, p in left)
                total += weight * (log(mass) - sum(p * log(p) for _, p in left) / mass)  # H(p/mass)
                if item.var in constrainers:
                    following += [({**bound, item.var: w}, weight * p / mass) for w, p in left]
            if item.var in constrainers:
                assignments = following
        return total


def _freed(piece: list[Item], drawn: dict[str, Draw]) -> list[tuple[Item, ...]]:
    """One sentence with its references to earlier sentences replaced: `$x` by a draw, `$x.he` by he or she."""
    here: set[str] = set()
    options: list[list[Item]] = []
    for item in piece:
        if isinstance(item, Draw):
            options.append([_within(item, here)])
            here.add(item.var)
        elif isinstance(item, Refer) and item.var not in here:
            if item.form:
                options.append(list(PRONOUNS[item.form].values()))
            else:
                options.append([_freed_draw(item.var, drawn, here)])
                here.add(item.var)
        else:
            options.append([item])
    return [tuple(choice) for choice in product(*options)]


def _within(draw: Draw, here: set[str]) -> Draw:
    """The draw with only those constraints that name words of the same sentence."""
    others = tuple(v for v in draw.others if v in here)
    return Draw(draw.words, draw.var, others, draw.other_gender if draw.other_gender in here else "")


def _freed_draw(var: str, drawn: dict[str, Draw], here: set[str]) -> Draw:
    """A draw for a word from an earlier sentence; it still differs from the words it differed from there."""
    own = drawn[var]
    apart = {v for v in here if v and (v in own.others or var in drawn[v].others)}
    return Draw(own.words, var, tuple(sorted(apart)))
