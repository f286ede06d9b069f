"""The grammar and its exact parser against brute force: every derivation of a tiny language, written out by hand."""

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.sources.world import corpus
from forgetlab.sources.world.grammar import Call, Draw, Grammar, Refer
from forgetlab.sources.world.inside import Parser

LEXICON = """
# a comment
[name tag=B-PER gender=f]
ann bea
[name tag=B-PER gender=m]
carl dan     # dan is a name and a city
[name tag=B-PER gender=f novel heldout]
zoe
[city tag=B-LOC]
dan oslo
[beast forms=sg,pl]
cat/cats dog/dogs
[see forms=sg,pl]
sees/see
"""
TINY = """
vary n = sg pl
vary k = big wee mad

Top   # the start
  3 x=@name met y=@name!x.gender . $y.he gave $x.him $x.his cat . $x left .
  1 x=@name met y=@name!x in Place .
  2 Beasts<n>
  1 x=@name is <k>ger than @name!x , not <!k> .
  1 Maybe the end .
  1~new the end at last .
Beasts<n>
  1 the @beast.<n> @see.<n> the @beast.<!n> .
Maybe
  1 -
  1 truly
Place
  1 @city
  1 oslo
"""
GENDER = {"ann": "f", "bea": "f", "carl": "m", "dan": "m", "zoe": "f"}
THEY = {"f": ("she", "her", "her"), "m": ("he", "him", "his")}


def world(folder, grammar=TINY, similarity=1.0, lexicon=LEXICON):
    (folder / "lexicon.txt").write_text(lexicon)
    (folder / "tiny.grammar").write_text(grammar)
    return Grammar(folder, similarity)


def by_hand(s):
    """(probability, text) of every derivation of TINY at similarity `s`, as its lines are meant; exact fractions."""
    first, second = Fraction(7, 13), Fraction(6, 13)  # weights 1/6 and 1/7 by rank, normalised
    half = s / 2  # women and men are ranked apart
    names = {"ann": half * first, "bea": half * second, "carl": half * first, "dan": half * second, "zoe": 1 - s}

    def pick(fits):
        left = {name: p for name, p in names.items() if p and fits(name)}
        return [(name, p / sum(left.values())) for name, p in left.items()]

    for x, p in pick(lambda name: True):
        him, his = THEY[GENDER[x]][1:]
        for y, q in pick(lambda name, x=x: GENDER[name] != GENDER[x]):
            he = THEY[GENDER[y]][0]
            yield s * Fraction(3, 8) * p * q, f"{x} met {y} . {he} gave {him} {his} cat . {x} left ."
        for y, q in pick(lambda name, x=x: name != x):
            for place, r in (("dan", first / 2), ("oslo", second / 2), ("oslo", Fraction(1, 2))):
                yield s * Fraction(1, 8) * p * q * r, f"{x} met {y} in {place} ."
            for k in ("big", "wee", "mad"):
                for other in {"big", "wee", "mad"} - {k}:
                    yield s * Fraction(1, 8) * p * q / 6, f"{x} is {k}ger than {y} , not {other} ."
    for one, p in (("cat", first), ("dog", second)):
        for two, q in (("cat", first), ("dog", second)):
            yield s * Fraction(1, 8) * p * q, f"the {one} sees the {two}s ."
            yield s * Fraction(1, 8) * p * q, f"the {one}s see the {two} ."
    for maybe in ("", "truly "):
        yield s * Fraction(1, 16), f"{maybe}the end ."
    if s < 1:
        yield 1 - s, "the end at last ."


def by_text(derivations):
    total = Counter()
    for p, text in derivations:
        total[text] += p
    return total


SIMILARITIES = [Fraction(1), Fraction(3, 4), Fraction(1, 4)]


@pytest.mark.parametrize("s", SIMILARITIES)
def test_probability_entropy_and_length_are_those_of_all_derivations_written_by_hand(tmp_path, s):
    derivations = list(by_hand(s))
    assert sum(p for p, _ in derivations) == 1
    parser = Parser(world(tmp_path, similarity=float(s)))
    texts = by_text(derivations)
    assert len(texts) < len(derivations)  # "in oslo" has two derivations, and the parser must add them up
    for text, p in texts.items():
        assert parser.logprob(text.split(), "Top") == pytest.approx(math.log(p), abs=1e-12), text
    assert parser.entropy("Top") == pytest.approx(-sum(p * math.log(p) for p, _ in derivations), abs=1e-11)
    length = float(sum(p * len(text.split()) for p, text in derivations))
    assert parser.expected_length("Top") == pytest.approx(length, abs=1e-11)


@pytest.mark.parametrize("s", SIMILARITIES)
def test_conditional_is_the_share_of_the_text_among_all_that_differ_in_that_word_only(tmp_path, s):
    parser = Parser(world(tmp_path, similarity=float(s)))
    texts = by_text(by_hand(s))
    gaps = Counter()
    for text, p in texts.items():
        words = tuple(text.split())
        for i in range(len(words)):
            gaps[(*words[:i], None, *words[i + 1 :])] += p
    for text, p in list(texts.items())[::3]:
        words = tuple(text.split())
        for i in range(len(words)):
            total = gaps[(*words[:i], None, *words[i + 1 :])]
            assert parser.conditional(words, i, "Top") == pytest.approx(math.log(p / total), abs=1e-12), (text, i)


def test_the_sampler_draws_every_text_as_often_as_its_probability_says(tmp_path):
    grammar, rng, count = world(tmp_path, similarity=0.75), Random(5), 20_000
    drawn = Counter(grammar.sample("Top", rng).text for _ in range(count))
    texts = by_text(by_hand(Fraction(3, 4)))
    assert set(drawn) <= set(texts)
    for text, p in texts.items():
        assert abs(drawn[text] - count * p) < 5 * math.sqrt(count * p * (1 - p)) + 1, text


def test_a_sample_carries_tags_and_the_held_out_mark(tmp_path):
    grammar, rng = world(tmp_path, similarity=0.5), Random(2)
    seen = set()
    for _ in range(2000):
        sample = grammar.sample("Top", rng)
        for before, word, tag in zip(["", *sample.words], sample.words, sample.tags, strict=False):
            # "dan" after "in" is the city; the literal "oslo" of Place is no entity, the drawn one is
            wanted = {"B-LOC"} if word == "dan" else {"B-LOC", "O"}
            wanted = wanted if before == "in" else {"B-PER"} if word in GENDER else {"O"}
            assert tag in wanted, sample
            seen.add((word, tag))
        assert sample.heldout == ("zoe" in sample.words)
    assert {("dan", "B-LOC"), ("dan", "B-PER"), ("oslo", "B-LOC"), ("oslo", "O"), ("zoe", "B-PER")} <= seen


def test_nothing_next_to_the_language_is_accepted(tmp_path):
    parser = Parser(world(tmp_path))
    texts = set(by_text(by_hand(Fraction(1))))
    words = sorted({word for text in texts for word in text.split()})
    rejected = 0
    for text in sorted(texts)[::9]:
        old = text.split()
        near = [[*old[:i], w, *old[i + 1 :]] for i in range(len(old)) for w in words]
        near += [[*old[:i], *old[i + 1 :]] for i in range(len(old))] + [[*old, "."], old[:-1], []]
        for new in near:
            assert parser.accepts(new, "Top") == (" ".join(new) in texts)
            rejected += " ".join(new) not in texts
    assert rejected > 1000


# -- random grammars against an enumerator that does the obvious thing --------------------------------------


def enumerate_all(grammar, symbol):
    """(probability, words) of every derivation of a grammar without recursion."""
    for rule in grammar.rules[symbol]:
        partial = [(rule.probability, [], {})]
        for item in rule.items:
            following = []
            for p, words, bound in partial:
                if isinstance(item, str):
                    following.append((p, [*words, item], bound))
                elif isinstance(item, Call):
                    following += [(p * q, words + more, bound) for q, more in enumerate_all(grammar, item.symbol)]
                elif isinstance(item, Refer):
                    pronouns = {"he": 0, "him": 1, "his": 2}
                    word = bound[item.var]
                    text = THEY[word.gender][pronouns[item.form]] if item.form else word.text
                    following.append((p, [*words, text], bound))
                elif isinstance(item, Draw):
                    cls = grammar.classes[item.words]
                    fits = [
                        (word, q)
                        for word, q in zip(cls.words, cls.probabilities, strict=True)
                        if all(word.text != bound[o].text for o in item.others)
                        and not (item.other_gender and word.gender == bound[item.other_gender].gender)
                    ]
                    total = sum(q for _, q in fits)
                    for word, q in fits:
                        following.append((p * q / total, [*words, word.text], {**bound, item.var: word}))
            partial = following
        yield from ((p, words) for p, words, _ in partial)


def random_grammar(seed):
    rng, lines = Random(seed), []
    for level in range(3):  # a symbol calls only lower ones
        lines.append(f"S{level}")
        for _ in range(rng.randint(1, 3)):
            body, known = [], []
            for _ in range(rng.randint(0, 3)):
                kinds = ["a", "-", "draw", "name", *(["call"] * 2 if level else []), *(["refer"] * 2 if known else [])]
                kind = rng.choice(kinds)
                if kind == "draw":
                    body.append(rng.choice(["@city", "@beast.sg", "@beast.pl"]))
                elif kind == "name":
                    marks = rng.choice(["", f"!{rng.choice(known)}", f"!{rng.choice(known)}.gender"]) if known else ""
                    body.append(f"v{len(known)}=@name{marks}")
                    known.append(f"v{len(known)}")
                elif kind == "call":
                    body.append(f"S{rng.randrange(level)}")
                elif kind == "refer":
                    body.append(f"${rng.choice(known)}{rng.choice(['', '.he', '.him', '.his'])}")
                else:
                    body.append(kind)
            lines.append(f"  {rng.randint(1, 5)} {' '.join(body) or '-'}")
    return "\n".join(lines)


def test_the_parser_agrees_with_enumeration_on_random_ambiguous_grammars(tmp_path):
    rng, ambiguous, compared = Random(0), 0, 0
    for seed in range(60):
        grammar = world(tmp_path, random_grammar(seed), similarity=0.5)
        derivations = [(p, " ".join(words)) for p, words in enumerate_all(grammar, "S2")]
        texts, parser = by_text(derivations), Parser(grammar)
        assert sum(texts.values()) == pytest.approx(1)
        assert parser.entropy("S2") == pytest.approx(-sum(p * math.log(p) for p, _ in derivations), abs=1e-9)
        ambiguous += len(texts) < len(derivations)
        for text in rng.sample(sorted(texts), min(10, len(texts))):
            words = text.split()
            assert parser.logprob(words, "S2") == pytest.approx(math.log(texts[text]), abs=1e-9)
            gap = [None if rng.random() < 0.4 else word for word in words]
            total = sum(
                p
                for other, p in texts.items()
                if len(other.split()) == len(gap)
                and all(g in (None, word) for g, word in zip(gap, other.split(), strict=True))
            )
            assert parser.logprob(gap, "S2") == pytest.approx(math.log(total), abs=1e-9)
            compared += 1
    assert ambiguous > 10
    assert compared > 200


# -- recursion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("go", "stop"), [(3, 1), (1, 1), (1, 9)])
def test_a_chain_has_the_entropy_of_the_geometric_distribution(tmp_path, go, stop):
    parser = Parser(world(tmp_path, f"Chain\n  {go} a Chain\n  {stop} a\n"))
    p = stop / (go + stop)
    entropy = (-p * math.log(p) - (1 - p) * math.log(1 - p)) / p
    assert parser.entropy("Chain") == pytest.approx(entropy, abs=1e-9)
    assert parser.expected_length("Chain") == pytest.approx(1 / p, abs=1e-9)
    assert parser.logprob(["a"] * 7, "Chain") == pytest.approx(math.log(p * (1 - p) ** 6))


def test_a_branching_process_has_its_closed_forms(tmp_path):
    parser = Parser(world(tmp_path, "Tree\n  2 leaf\n  1 ( Tree Tree )\n"))
    # H = h + (2/3) H and E = 2/3 + (1/3)(2 + 2 E)
    assert parser.entropy("Tree") == pytest.approx(3 * (math.log(3) - 2 / 3 * math.log(2)), abs=1e-9)
    assert parser.expected_length("Tree") == pytest.approx(4, abs=1e-9)
    shape = ["(", "(", "leaf", "leaf", ")", "leaf", ")"]
    assert parser.logprob(shape, "Tree") == pytest.approx(math.log((1 / 3) ** 2 * (2 / 3) ** 3))
    assert not parser.accepts(shape[:-1], "Tree")


# -- splits -------------------------------------------------------------------------------------------------


def test_the_draws_of_the_splits_part_the_language_and_end_with_an_error(tmp_path, monkeypatch):
    tiny = world(tmp_path, similarity=0.75)
    monkeypatch.setattr(corpus, "grammar", lambda similarity=1.0: tiny)
    texts = set(by_text(by_hand(Fraction(3, 4))))
    test = {text for text in texts if corpus.side(text) == "test"}
    zoe = {text for text in texts if "zoe" in text.split()}
    for split, wanted in (("test", test - zoe), ("heldout", test & zoe)):
        stream = corpus.draw("Top", split, Random(0))
        assert {next(stream).text for _ in wanted} == wanted != set()
    with pytest.raises(ForgetlabError, match="no further heldout text of Top"):
        next(stream)
    stream = corpus.draw("Top", "train", Random(0))
    assert {next(stream).text for _ in range(5000)} <= texts - test - zoe
    share = sum(corpus.side(str(i)) == "test" for i in range(20_000)) / 20_000
    assert abs(share - 0.15) < 4 * math.sqrt(0.15 * 0.85 / 20_000)


def test_fluency_takes_sentences_alone_and_coherence_takes_whole_texts(monkeypatch, tmp_path):
    grammar = "Anything\n  1 x=@name met y=@name!x.gender . $y.he smiled .\n"
    tiny = Parser(world(tmp_path, grammar))
    monkeypatch.setattr(corpus, "parser", lambda similarity=1.0: tiny)
    good, wrong = "ann met carl . he smiled .", "ann met carl . she smiled ."
    assert corpus.sentences("a b . c ? d") == [["a", "b", "."], ["c", "?"], ["d"]]
    assert corpus.fluency([good, wrong]) == 1
    assert corpus.coherence([good, wrong]) == 0.5
    assert corpus.fluency(["ann met bea . he smiled . they smiled . she"]) == 0.25
    assert corpus.coherence(["he smiled .", good]) == 1  # one sentence has nothing to disagree with
    assert corpus.fluency([]) == corpus.coherence([]) == corpus.fluency([""]) == 0


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", [-0.01, 1.01, math.nan, 100])
def test_a_similarity_outside_0_to_1_is_refused(tmp_path, similarity):
    with pytest.raises(ForgetlabError, match="similarity must be between 0 and 1"):
        world(tmp_path, similarity=similarity)


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("Top\n  three a b .\n", r"tiny\.grammar: expected a weight, got 'three'"),
        ("Top\n  1 the @beats.sg .\n", r"tiny\.grammar: unknown word class 'beats\.sg'; did you mean 'beast\.sg'\?"),
        ("Top\n  1 the @beast .\n", r"unknown word class 'beast'; did you mean 'beast\.\w\w'\?"),
        ("Top\n  1 Placee\nPlace\n  1 here\n", r"Top: unknown symbol 'Placee'; did you mean 'Place'\?"),
    ],
)
def test_a_malformed_grammar_names_the_line_and_the_nearest_match(tmp_path, grammar, message):
    with pytest.raises(ForgetlabError, match=message):
        world(tmp_path, grammar)


def test_an_unknown_symbol_is_refused_with_the_nearest_one(tmp_path):
    grammar = world(tmp_path)
    with pytest.raises(ForgetlabError, match="unknown symbol 'Plaec'; did you mean 'Place'"):
        grammar.sample("Plaec", Random(0))
    with pytest.raises(ForgetlabError, match="unknown symbol 'Beastsg'; did you mean 'Beastssg'"):
        Parser(grammar).logprob(["a"], "Beastsg")


def test_the_vocabulary_is_every_word_of_every_text_and_the_pronouns(tmp_path):
    texts = by_text(by_hand(Fraction(1, 2)))
    words = {word for text in texts for word in text.split()}
    assert world(tmp_path, similarity=0.5).vocabulary() == sorted(words | {"he", "she", "him", "her", "his"})
    assert all(a < b for a, b in pairwise(world(tmp_path).vocabulary()))
