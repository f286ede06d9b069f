"""The real embedded language against judges written here: of polarity, of names, of agreement, of pronouns."""

import math
import re
from functools import cache
from itertools import pairwise
from random import Random
from statistics import mean, stdev

import pytest

from forgetlab.sources.shipped import data_folder
from forgetlab.sources.world import REGISTERS, broken, coherence, draw, fluency, parser, vocabulary
from forgetlab.sources.world.corpus import PHENOMENA, grammar, side

SYMBOLS = [*REGISTERS.values(), "Entails", "Neutral", "Contradicts"]


def samples(symbol, count, similarity=1.0, seed=7):
    source, rng = grammar(similarity), Random(seed)
    return [source.sample(symbol, rng) for _ in range(count)]


@cache
def lexicon():
    """(class, attributes, words) of every list in the lexicon file; a word of several forms is one entry."""
    text = re.sub(r"#.*", "", (data_folder() / "world" / "lexicon.txt").read_text())
    found = re.findall(r"\[(\w+)(.*)\]\s*([^\[]*)", text)
    return [(name, attributes.split(), words.split()) for name, attributes, words in found]


def listed(name, attribute=None):
    """The words of a class, in all forms; with `attribute`, of those lists that have it."""
    lists = [words for n, attributes, words in lexicon() if n == name and (not attribute or attribute in attributes)]
    assert lists, name
    return {form for words in lists for word in words for form in word.split("/")}


# -- exactness ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [*SYMBOLS, "Anything"])
@pytest.mark.parametrize("similarity", [1.0, 0.5])
def test_a_text_has_one_derivation_so_its_probability_is_that_of_its_sample(symbol, similarity):
    for sample in samples(symbol, 400, similarity):
        logprob = parser(similarity).logprob(sample.words, symbol)
        assert logprob == pytest.approx(sample.logprob, abs=1e-9), sample.text


@pytest.mark.slow
@pytest.mark.parametrize("symbol", [*SYMBOLS, "Anything"])
def test_entropy_and_length_agree_with_monte_carlo(symbol):
    drawn = samples(symbol, 4000, seed=3)
    exact = parser()
    for values, value in (
        ([-s.logprob for s in drawn], exact.entropy(symbol)),
        ([len(s.words) for s in drawn], exact.expected_length(symbol)),
    ):
        assert abs(mean(values) - value) < 4 * stdev(values) / math.sqrt(len(values)) + 1e-9


def test_a_gap_is_worth_its_share_of_all_words_that_could_stand_there():
    rng, words, exact = Random(4), vocabulary(), parser()
    for sample in samples("General", 15, seed=9):
        i = rng.randrange(len(sample.words))
        others = ([*sample.words[:i], word, *sample.words[i + 1 :]] for word in words)
        total = math.fsum(math.exp(exact.logprob(other)) for other in others)
        wanted = exact.logprob(sample.words) - math.log(total)
        assert exact.conditional(sample.words, i) == pytest.approx(wanted, abs=1e-9), sample.text


def test_the_language_has_its_size_and_its_registers_do_not_overlap():
    assert len(vocabulary()) >= 800
    assert len(set(vocabulary())) == len(vocabulary())
    assert len(REGISTERS) >= 5
    apart = [symbol for register, symbol in REGISTERS.items() if register != "general"]
    known = set(vocabulary())
    for symbol in apart:
        for sample in samples(symbol, 150, 0.5):
            assert [s for s in apart if parser(0.5).accepts(sample.words, s)] == [symbol], sample.text
            assert set(sample.words) <= known


# -- hand-written sentences --------------------------------------------------------------------------------

GOOD = """
the film was not bad .
the story of this novel was dull but moving .
although the cast was clumsy , the play was brilliant .
anna denied that the opera was really bad .
the plot was witty and the music was very good .
the songs were good and never weak .
maria washington loved the show .
at no time was the lighting dreary .
once dull , now superb : the podcast of the year .
good , not bad , was the film that anna saw .
far from dull is the word for these plays .
jordan washington told reporters in washington that the judge fears the strike .
paris washington , the mayor of paris , said that washington bank opposed the trial .
jordan flew from jordan to paris on monday .
shares of jordan rose ten percent on friday .
ford motors bought paris for six million today .
the ministers near the market walk to the park .
the minister who knows the pilots walks to the park .
the ministers who know the pilot who helps the doctors have seen the storm .
the guard does not trust the students .
these teachers admire jordan ford .
anna gave boris a small lamp . he thanked her for the lamp .
paul lost his key in the attic . he found the key in the attic today .
paul lost his key near the tower . anna found it and gave him the key .
anna and paul drove to oslo . they liked oslo and stayed two days .
anna was sad . paul asked why anna was sad . anna smiled .
anna is older than boris . boris is older than clara . the oldest is anna .
paris is in the park . sydney is in the tower . paris is in the park .
first wash the carrots . then put them in the pan and fry them for ten minutes .
if the fish is dry , add some oil . do not add too much oil .
the tenant shall promptly pay the rent to the landlord within ten days .
no fever after two days of aspirin ; continue aspirin and review on monday .
"""
BAD = """
the film were not bad .
the story of this novels was dull but moving .
the film was not not bad .
the film was far from not bad .
although the cast was clumsy , the play was clumsy .
although the cast was brilliant , the play was good .
anna denied that the opera were good .
the songs were good and dull .
the plot was witty and the music was very dull .
washington jordan told reporters in washington that the judge fears the strike .
tallinn told reporters in washington that the judge fears the strike .
anna , the mayor of boris , said that washington bank opposed the trial .
jordan flew from jordan to jordan on monday .
shares of anna rose ten percent on friday .
anna bought paris media for six million today .
the ministers near the market walks to the park .
the minister who knows the pilots walk to the park .
the minister who know the pilots walks to the park .
the guard do not trust the students .
the guard does not trusts the students .
these teacher admires jordan ford .
anna gave boris a small lamp . she thanked him for the lamp .
anna gave boris a small lamp . he thanked her for the key .
anna gave maria a small lamp . she thanked her for the lamp .
paul lost her key in the attic . he found the key in the attic today .
paul lost his key in the attic . he found the key in the tower today .
anna and paul drove to oslo . they liked dallas and stayed two days .
anna was sad . paul asked why anna was happy . anna smiled .
anna was sad . paul asked why anna was sad . paul smiled .
anna is older than boris . boris is older than clara . the oldest is clara .
anna is older than boris . boris is taller than clara . the oldest is anna .
paris is in the park . sydney is in the tower . paris is in the tower .
first wash the carrots . then put it in the pan and fry them for ten minutes .
if the fish are dry , add some oil . do not add too much oil .
if the fish is dry , add some oil . do not add too much salt .
the tenant shall promptly pay the rent to the tenant within ten days .
no fever after two days of aspirin ; continue insulin and review on monday .
"""


@pytest.mark.parametrize("text", GOOD.strip().splitlines())
def test_a_good_text_is_in_the_language(text):
    assert parser(0.5).accepts(text.split())
    assert fluency([text]) == 1


@pytest.mark.parametrize("text", BAD.strip().splitlines())
def test_a_bad_text_is_not(text):
    assert not parser(0.5).accepts(text.split())


def test_nobody_is_older_than_herself():
    assert fluency(["anna is older than anna ."]) == 0


# -- independent judges ------------------------------------------------------------------------------------


def polarity(text):
    """+1 or -1: a clause is its quality, turned by each negation; "but" and "although" leave their main clause."""
    text = text.removesuffix(" .")
    if found := re.fullmatch(r"\w+(?: \w+)? denied that (.*)", text):
        return -polarity(found[1])
    text = re.sub(r", not .*? ,", ",", text)
    for frame in (r"although .* , (.*)", r"once .* , now (.*) :.*", r".* but (.*)"):
        if found := re.fullmatch(frame, text):
            return polarity(found[1])
    if " and " in text:
        one, two = (polarity(part) for part in text.split(" and "))
        assert one == two, text  # "good and dull" has no polarity
        return one
    words = text.split()
    good = [w for w in words if w in listed("quality_pos") | listed("felt_pos")]
    bad = [w for w in words if w in listed("quality_neg") | listed("felt_neg")]
    assert len(good) + len(bad) == 1, text
    turned = sum(f" {text}".count(f" {no} ") for no in ("not", "never", "far from", "at no time"))
    return (1 if good else -1) * (-1) ** turned


@pytest.mark.parametrize(("symbol", "sign"), [("Reviewpos", 1), ("Reviewneg", -1)])
@pytest.mark.parametrize("similarity", [1.0, 0.5, 0.0])
def test_the_label_of_a_review_is_its_polarity(symbol, sign, similarity):
    for sample in samples(symbol, 400, similarity):
        assert polarity(sample.text) == sign, sample.text


def test_negation_and_contrast_turn_many_labels():
    turned = 0
    for sample in samples("Reviewpos", 1000):
        words = set(sample.words)
        turned += bool(words & (listed("quality_neg") | listed("felt_neg")))
    assert turned > 500


AMBIGUOUS = {
    "jordan",
    "paris",
    "washington",
    "sydney",
    "austin",
    "florence",
    "lincoln",
    "ford",
    "bell",
    "georgia",
    "dallas",
}
TRADE = "sold|bought|launched|acquired|financed"
COMPANY = (
    r"^shares of _",
    rf"^_( \w+)? ({TRADE}) ",
    r"^_( \w+)? (opened \w+ offices|hired)",
    r" said that _( \w+)? opposed| (announced|warned|claimed|explained|promised) that _( \w+)? opposed",
    rf"^\w+( (bank|group|motors|airlines|steel|media|foods|energy))? ({TRADE}) _",
)
PLACE = (
    r" in _",
    r" from _",
    r"(flew|ran|went|walked|drove|sailed|from \w+) to _",
    r"^the \w+ of _|, the mayor of _",
    r" (he|she|they) liked _| missed _",
)


def expected_tags(words):
    """A tag for each ambiguous name from the words around it: a company, a place, a surname, else a first name."""
    tags = {}
    for i, word in enumerate(words):
        if word in AMBIGUOUS:
            text = " ".join([*words[:i], "_", *words[i + 1 :]])
            after_first_name = i and words[i - 1] in listed("first_name")
            if any(re.search(pattern, text) for pattern in COMPANY):
                tags[i] = "B-ORG"
            elif any(re.search(pattern, text) for pattern in PLACE):
                tags[i] = "B-LOC"
            else:
                tags[i] = "I-PER" if after_first_name else "B-PER"
    return tags


def test_the_context_tells_a_person_from_a_place_from_a_company():
    seen = {word: set() for word in AMBIGUOUS}
    for sample in samples("General", 8000):
        for i, tag in expected_tags(sample.words).items():
            assert sample.tags[i] == tag, (sample.words[i], sample.text)
            seen[sample.words[i]].add(tag)
    assert all(len(tags) >= 2 for tags in seen.values()), seen
    assert {"B-PER", "B-LOC", "B-ORG"} <= seen["jordan"] & seen["paris"]
    assert {"I-PER", "B-LOC", "B-ORG"} <= seen["washington"]


def test_in_the_street_each_verb_agrees_with_its_own_noun():
    """The verb after "who" with the noun before it; the main verb with the first noun, over any distance."""
    number = {}
    for name in ("official", "know", "motion", "have", "do"):
        for n, attributes, words in lexicon():
            if n == name and attributes:
                number |= {form: i for word in words for i, form in enumerate(word.split("/"))}
    nested = 0
    for sample in samples("Street", 1500):
        words = sample.words
        verbs = [i for i, w in enumerate(words) if w in number and w not in listed("official")]
        main = [i for i in verbs if words[i - 1] != "who"]
        if "not" in words or words[0] in ("this", "these"):
            main = main[:1]  # "does not know": the verb after "not" has no number
        for i in verbs:
            if words[i - 1] == "who":
                assert number[words[i]] == number[words[i - 2]], sample.text
        assert len(main) == 1 or "not" in words, sample.text
        assert number[words[main[0]]] == number[words[1]], sample.text
        nested += words.count("who") > 1
    assert nested > 20


def test_in_a_story_each_pronoun_has_one_name_that_fits_it():
    fits = {"he": "gender=m", "him": "gender=m", "his": "gender=m", "she": "gender=f", "her": "gender=f"}
    pronouns = 0
    for sample in samples("Story", 1500):
        people = {word for word, tag in zip(sample.words, sample.tags, strict=True) if tag == "B-PER"}
        for word in sample.words:
            if word in fits:
                assert len(people & listed("first_name", fits[word])) == 1, sample.text
                pronouns += 1
    assert pronouns > 1000


def test_a_is_never_followed_by_a_vowel():
    followed = 0
    for similarity in (1.0, 0.0):
        for symbol in SYMBOLS:
            for sample in samples(symbol, 600, similarity):
                for one, two in pairwise(sample.words):
                    assert one != "an"
                    assert one != "a" or two[0] not in "aeiou", sample.text
                    followed += one == "a"
    assert followed > 500


# -- the similarity dial -----------------------------------------------------------------------------------

NOVEL_FORMS = (
    r".* is the word for (this|these) \w+ \.",
    r".* , not .* , (was|were) the \w+ that .* saw \.",
    r"at no time was the .*",
    r"once .* , now .* : the \w+ of the year \.",
)


def test_the_dial_sets_the_share_of_novel_words_and_of_novel_structures():
    slots = {"work", "aspect", "quality_pos", "quality_neg"}
    novel = {word for slot in slots for word in listed(slot, "novel")}
    familiar = {word for slot in slots for word in listed(slot)} - novel
    count, rates = 3000, []
    for similarity in (1.0, 0.8, 0.5, 0.2, 0.0):
        texts = [sample.words for sample in samples("Review", count, similarity, seed=1)]
        new = sum(word in novel for words in texts for word in words)
        old = sum(word in familiar for words in texts for word in words)
        forms = sum(any(re.fullmatch(form, " ".join(words)) for form in NOVEL_FORMS) for words in texts)
        for found, total in ((new, new + old), (forms, count)):
            error = 4 * math.sqrt(similarity * (1 - similarity) / total)
            assert abs(found / total - (1 - similarity)) <= error, similarity
        rates.append((new / (new + old), forms))
    assert rates == sorted(rates)
    assert rates[0] == (0, 0)
    assert rates[-1] == (1, count)


def test_the_other_registers_do_not_change_with_the_dial():
    for symbol in ("News", "Story", "Howto", "Riddle"):
        assert [s.text for s in samples(symbol, 50, 0.0)] == [s.text for s in samples(symbol, 50, 1.0)]
    assert [s.text for s in samples("Review", 50, 0.0)] != [s.text for s in samples("Review", 50, 1.0)]


# -- broken and shuffled text ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", PHENOMENA)
def test_a_broken_text_has_one_fault_of_its_kind_and_leaves_the_language(fault):
    rng, made = Random(6), 0
    for sample in samples("General", 800 if fault == "coreference" else 200):
        words = broken(sample, fault, rng)
        if words is None:
            continue
        made += 1
        assert not parser(0.5).accepts(words)
        changed = [i for i, (a, b) in enumerate(zip(words, sample.words, strict=True)) if a != b]
        assert len(changed) == (2 if fault == "order" else 1), words
        old, new = sample.words[changed[0]], words[changed[0]]
        if fault == "order":
            assert changed[1] == changed[0] + 1
            assert sorted(words) == sorted(sample.words)
        elif fault == "pronoun":
            assert {old, new} <= {"he", "she", "him", "her", "his"}
        elif fault == "agreement":
            assert any(
                sorted((old, new)) == sorted(entry.split("/"))
                for name, _, entries in lexicon()
                if name not in ("official", "thing", "food", "work", "event", "party", "patient")
                for entry in entries
            ), (old, new)
        else:
            assert old in sample.words[: changed[0]]
            assert new not in sample.words
    assert made > 30


def test_good_text_is_fluent_and_coherent_and_shuffled_text_is_neither():
    rng = Random(8)
    texts = [sample.text for symbol in REGISTERS.values() for sample in samples(symbol, 60, 0.5)]
    assert fluency(texts) == coherence(texts) == 1
    shuffled = [" ".join(rng.sample(text.split(), len(text.split()))) for text in texts]
    assert fluency(shuffled) < 0.02
    assert coherence(shuffled) == 0
    swapped = [a.partition(" . ")[0] + " . " + b.partition(" . ")[2] for a, b in pairwise(texts) if " . " in a + b]
    stories = [text for text in swapped if text.count(" .") == 2]
    assert fluency(stories) > 0.9  # each sentence is fine, the facts are of two stories
    assert coherence(stories) < 0.1


def test_a_draw_keeps_held_out_words_where_they_belong():
    names = {
        word for _, attributes, words in lexicon() if "heldout" in attributes for e in words for word in e.split("/")
    }
    for split in ("train", "test", "heldout"):
        stream = draw("General", split, Random(1))
        texts = [next(stream).words for _ in range(200)]
        assert {bool(names & set(words)) for words in texts} == {split == "heldout"}
        assert {side(" ".join(words)) for words in texts} == {"train" if split == "train" else "test"}
        assert split == "train" or len({tuple(words) for words in texts}) == 200
