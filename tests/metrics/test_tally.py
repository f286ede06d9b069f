"""What scores are made of, samples of test sets and guessers: against slow counts."""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.experiments.recipes import Recipe, describe, prepare
from forgetlab.experiments.stacked import Variant, finetune_stacked
from forgetlab.metrics.language import entity_counts
from forgetlab.metrics.tally import Tally, score_of_sums, stratified
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import CausalLM, Classification, MaskedLM, Tagging, Task
from forgetlab.tasks.probes import Cloze, KShot, MinimalPairs, MultipleChoice
from forgetlab.tasks.suites import MatthewsClassification
from forgetlab.tasks.writing import Generation
from forgetlab.training.method import Method
from forgetlab.training.record import Record
from tests.conftest import small_model


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    """The shipped ones, which know something and not everything."""
    return {name: load(name, device="cpu") for name in ("tiny-bert", "tiny-gpt")}


def first(name: str, count: int) -> Examples:
    """The first test sentences of an embedded task."""
    test = task(name).test
    cut = {
        key: value[:count] if value else value for key, value in asdict(test).items() if key not in ("kind", "notes")
    }
    return Examples(test.kind, **cut)


def matthews() -> Task:
    one = task("acceptability")
    return MatthewsClassification("acceptability", one.train, one.test)


def riddles() -> Task:
    cloze = task("cloze")
    assert isinstance(cloze, Cloze)
    return MultipleChoice("riddles", cloze.questions, cloze.choices, cloze.answers)


KINDS: dict[str, tuple[str, Callable[[], Task]]] = {
    "classification": ("tiny-bert", lambda: task("acceptability")),
    "pairs of texts": ("tiny-bert", lambda: task("entailment")),
    "matthews": ("tiny-bert", matthews),
    "tagging": ("tiny-bert", lambda: task("entities")),
    "masked-lm": ("tiny-bert", lambda: task("masked-lm")),
    "causal-lm": ("tiny-gpt", lambda: task("causal-lm")),
    "minimal-pairs": ("tiny-bert", lambda: task("minimal-pairs")),
    "cloze": ("tiny-gpt", lambda: task("cloze")),
    "choices": ("tiny-gpt", riddles),
    "k-shot": ("tiny-bert", lambda: task("k-shot")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_main_score_is_that_of_the_sums_of_its_items(kind: str, models: dict[str, Model]) -> None:
    """To the last bit; and the score of a sample is that of the sample's own items, so that none is mistaken."""
    name, make = KINDS[kind]
    model, one = models[name], make()
    one.prepare(model)
    if kind in ("masked-lm", "minimal-pairs", "choices", "cloze", "k-shot"):  # the slower ones
        one.sample = lambda limit: stratified([None] * 120, limit)  # type: ignore[method-assign]
    scores, whole = one.scored(model, 90)
    assert whole is not None
    assert whole.items.shape == (90, len(whole.columns))
    assert whole.items.dtype == torch.float64
    assert float(one.main_score(whole.items.sum(0))) == scores[one.metric]
    assert one.tally(model, 90).items.equal(whole.items)  # type: ignore[union-attr]
    rows = one.sample(90).tolist()
    some = one.sample(25)
    own = one.tally(model, 25)
    assert own is not None
    known = [rows.index(row) for row in some.tolist() if row in rows]
    assert len(known) > 5
    mine = [i for i, row in enumerate(some.tolist()) if row in rows]
    assert own.items[mine].numpy() == pytest.approx(whole.items[known].numpy(), rel=1e-4, abs=1e-4)


def test_items_text_by_text(models: dict[str, Model]) -> None:
    model, one = models["tiny-gpt"], CausalLM("lm", None, first("causal-lm", 12))
    one.prepare(model)
    tally = one.tally(model)
    assert tally is not None
    assert tally.columns == ("nll", "tokens")
    for text, (nll, tokens) in zip(one.test.texts, tally.items.tolist(), strict=True):
        alone = CausalLM("alone", None, Examples("text", (text,)))
        assert (nll, tokens) == pytest.approx((alone.score(model)["loss"] * tokens, len(text.split()) + 1), rel=1e-5)

    model, one = models["tiny-bert"], task("entities")
    tally = one.tally(model)
    assert tally is not None
    assert isinstance(one, Tagging)
    assert one.test.words is not None
    assert one.test.tags is not None
    for i, (words, tags) in enumerate(zip(one.test.words[:12], one.test.tags[:12], strict=True)):
        with torch.no_grad():
            batch = model.tokenizer(" ".join(words), return_tensors="pt")
            guesses = [one.labels[k] for k in model.logits(batch, "entities")[0, 1:-1].argmax(-1)]
        assert tally.items[i].tolist() == list(entity_counts(guesses, tags))


def test_the_scores_of_sums_against_the_published_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 30, (50, 9), generator=generator).double()
    for row, found in zip(cells.long(), score_of_sums("matthews", cells).tolist(), strict=True):
        gold, said = (torch.arange(9).repeat_interleave(row) // 3, torch.arange(9).repeat_interleave(row) % 3)
        assert found == pytest.approx(matthews_corrcoef(gold, said))
    assert score_of_sums("matthews", torch.tensor([[4.0, 0, 3, 0], [0, 0, 0, 5]])).tolist() == [0, 0]  # one class
    assert float(score_of_sums("perplexity", torch.tensor([10.0, 20]))) == pytest.approx(math.exp(0.5))
    assert score_of_sums("f1", torch.tensor([[3.0, 4, 6], [0, 0, 0]])).tolist() == [pytest.approx(0.6), 0]
    with pytest.raises(ForgetlabError, match="fluency is no function of sums over test items; those are: accuracy"):
        score_of_sums("fluency", torch.ones(2))


# -- samples ------------------------------------------------------------------------------------------


def test_a_sample_has_of_each_class_its_share() -> None:
    classes = ["a"] * 500 + ["b"] * 300 + ["c"] * 197 + ["d"] * 3
    for limit in (1, 7, 100, 512, 999):
        rows = stratified(classes, limit).tolist()
        assert rows == sorted(set(rows))
        assert len(rows) == limit
        counts = Counter(classes[row] for row in rows)
        for name, size in Counter(classes).items():
            assert abs(counts[name] - limit * size / 1000) < 1
        assert stratified(classes, limit).tolist() == rows
    for limit in (None, 1000, 5000):
        assert stratified(classes, limit).tolist() == list(range(1000))


def test_the_sample_is_spread_over_the_file_and_the_same_for_all(models: dict[str, Model]) -> None:
    one, again = task("causal-lm"), task("causal-lm")
    rows = one.sample(128)
    assert rows.equal(again.sample(128))
    assert abs(float(rows.double().mean()) - (len(one.test) - 1) / 2) < 40  # a standard error is 12
    assert one.score(models["tiny-gpt"], 100_000) == one.score(models["tiny-gpt"])


def test_choices_and_pairs_stay_together(models: dict[str, Model]) -> None:
    """A sampled probe scores what a probe of just those items scores."""
    one = riddles()
    assert isinstance(one, MultipleChoice)
    rows = one.sample(20).tolist()
    assert rows != list(range(20))
    alone = MultipleChoice("alone", *([part[i] for i in rows] for part in (one.questions, one.choices, one.answers)))
    assert one.score(models["tiny-gpt"], 20) == pytest.approx(alone.score(models["tiny-gpt"]))
    pairs = task("minimal-pairs")
    rows = pairs.sample(20).tolist()
    good, bad = ([pairs.test.texts[2 * i + k] for i in rows] for k in (0, 1))
    alone_pairs = MinimalPairs("alone", good, bad)
    assert pairs.score(models["tiny-bert"], 20) == alone_pairs.score(models["tiny-bert"])


def test_prompts_come_from_the_whole_of_a_sorted_file(gpt: Model) -> None:
    prompts = ["anna is in the park ."] * 50 + ["boris is in the park ."] * 50
    starts = Generation(prompts=prompts, count=20)._start(gpt, 20)
    assert len(starts) == 20
    assert len(set(starts[:, 1].tolist())) == 2


def interval(tally: Tally) -> tuple[float, float]:
    """95 % of Σ a / Σ b over items, by the linearised ratio."""
    a, b = tally.items.T
    ratio = a.sum() / b.sum()
    error = 1.96 * float(((a - ratio * b) ** 2).sum().sqrt() / b.sum())
    return float(ratio) - error, float(ratio) + error


@pytest.mark.parametrize("limit", [64, 128, 256])
def test_on_a_sorted_file_a_limit_stays_within_its_interval(limit: int, models: dict[str, Model]) -> None:
    """The first rows, which a limit once took, are of one class and score something else."""
    bert = models["tiny-bert"]
    given = task("acceptability")
    order = sorted(range(len(given.test)), key=lambda i: given.test.labels[i])  # type: ignore[index]

    def rows(of: list[int]) -> Classification:
        labels = tuple(given.test.labels[i] for i in of)  # type: ignore[index]
        test = Examples("labelled", tuple(given.test.texts[i] for i in of), labels=labels)
        return Classification("acceptability", given.train, test)  # type: ignore[arg-type]

    one = rows(order)
    whole, some = one.score(bert)["accuracy"], one.tally(bert, limit)
    assert some is not None
    low, high = interval(some)
    assert low < whole < high
    assert not low < rows(order[:limit]).score(bert)["accuracy"] < high

    texts = (*task("causal-lm").test.texts, *task("causal-lm:notices").test.texts)
    gpt, mixed = models["tiny-gpt"], CausalLM("mixed", None, Examples("text", texts))
    loss, part = mixed.score(gpt)["loss"], mixed.tally(gpt, limit)
    assert part is not None
    low, high = interval(part)
    assert low < loss < high
    assert not low < CausalLM("first", None, Examples("text", texts[:limit])).score(gpt)["loss"] < high


def test_remarks_say_how_many_are_scored(models: dict[str, Model]) -> None:
    for name, (model, make) in KINDS.items():
        one = make()
        expected = f"{one.name}: 16 of {one.items()} test items are scored, the same ones at every look"
        assert expected in one.remarks(models[model], "test", limit=16), name
        assert one.remarks(models[model], "test", limit=10**6) == one.remarks(models[model], "test")
    record = next(finetune(small_model(), task("sentiment", size=64), limit=8))
    assert "sentiment: 8 of 512 test items are scored, the same ones at every look" in record.notes


# -- guessers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 50])
def test_guessers_against_a_slow_count(limit: int | None, models: dict[str, Model]) -> None:
    bert, gpt = models["tiny-bert"], models["tiny-gpt"]
    texts = tuple(f"w{i}" for i in range(100))
    labels = ("a",) * 70 + ("b",) * 20 + ("c",) * 10
    uneven = Examples("labelled", texts, labels=labels)
    own = [labels[i] for i in stratified(labels, limit).tolist()]
    assert Classification("mine", uneven, uneven).guesser(bert, limit) == pytest.approx(own.count("a") / len(own))
    assert KShot("mine", uneven, uneven, k=2).guesser(bert, limit) == pytest.approx(own.count("a") / len(own))
    assert MatthewsClassification("mine", uneven, uneven).guesser(bert, limit) == 0
    assert task("entities").guesser(bert, limit) == 0
    assert task("minimal-pairs").guesser(bert, limit) == 0.5
    for one in (task("cloze"), riddles()):
        sizes = [len(task("cloze").choices[i]) for i in one.sample(limit).tolist()]  # type: ignore[attr-defined]
        assert one.guesser(gpt, limit) == pytest.approx(sum(1 / n for n in sizes) / len(sizes))
    assert task("writing").guesser(gpt, limit) is None
    assert Generation().guesser(gpt, limit) is None

    lm = task("causal-lm")  # each word and the end is guessed by its share of all of them
    words = [w for i in lm.sample(limit).tolist() for w in (*lm.test.texts[i].lower().split(), "[EOS]")]
    shares = {word: count / len(words) for word, count in Counter(words).items()}
    assert lm.guesser(gpt, limit) == pytest.approx(math.exp(-sum(math.log(shares[w]) for w in words) / len(words)))
    masked = task("masked-lm")  # the frequencies are of every word, the guesses for the hidden ones
    assert isinstance(masked, MaskedLM)
    assert masked._gaps is not None
    rows = masked.sample(limit).tolist()
    words = [w for i in rows for w in masked.test.texts[i].lower().split()]
    shares = {word: count / len(words) for word, count in Counter(words).items()}
    hidden = [masked.test.texts[i].lower().split()[int(masked._gaps[i])] for i in rows]
    assert masked.guesser(bert, limit) == pytest.approx(
        math.exp(-sum(math.log(shares[w]) for w in hidden) / len(hidden))
    )


def test_the_guesser_knows_no_end_that_is_not_scored(gpt: Model) -> None:
    same = CausalLM("same", None, Examples("text", ("anna anna anna",) * 3))
    # one token in four is the end: exp of the entropy of (3/4, 1/4)
    assert same.guesser(gpt) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    gpt.config.end_mark = False
    assert same.guesser(gpt) == pytest.approx(1)  # nothing is open to one who knows the frequencies


# -- records ------------------------------------------------------------------------------------------


def records(methods: list[Method] | None = None, **options: object) -> list[Record]:
    model = small_model()
    watch = [task("masked-lm"), task("minimal-pairs")]
    new = task("sentiment", size=64)
    return list(finetune(model, new, watch=watch, methods=methods or [], limit=12, steps=6, every=2, **options))  # type: ignore[arg-type]


def test_tallies_stand_in_the_first_record_and_in_the_last() -> None:
    found = records()
    assert [bool(record.tallies) for record in found] == [True, False, False, True]
    for record in (found[0], found[-1]):
        assert list(record.tallies) == ["sentiment", "masked-lm", "minimal-pairs"]
        for name, metric in (("sentiment", "accuracy"), ("masked-lm", "perplexity"), ("minimal-pairs", "accuracy")):
            items = torch.tensor(record.tallies[name], dtype=torch.float64)
            assert len(items) == 12
            assert float(score_of_sums(metric, items.sum(0))) == pytest.approx(record.scores[name][metric], rel=1e-4)
    text = json.dumps(found[-1].as_dict()["tallies"])
    assert "[1, 1]" in text or "[0, 1]" in text
    assert len(text) < 12 * 3 * 20

    class Stop(Method):
        name = "stop"

        def should_stop(self, record: Record, run: object) -> str | None:
            return "enough" if record.step >= 4 else None

    stopped = records([Stop()])
    assert [(record.status, bool(record.tallies)) for record in stopped] == [
        ("running", True),
        ("running", False),
        ("running", False),
        ("stopped", True),
    ]
    diverged = records(lr=1e30)
    assert diverged[-1].status == "diverged"
    assert diverged[-1].tallies
    json.loads(json.dumps(diverged[-1].as_dict(), allow_nan=False))


def test_stacked_runs_have_the_same_tallies() -> None:
    new, watch = task("sentiment", size=64), [task("masked-lm"), task("minimal-pairs")]
    options = {"watch": watch, "limit": 12, "steps": 4, "every": 2, "batch_size": 16}
    alone = list(finetune(small_model(), new, lr=1e-3, **options))  # type: ignore[arg-type]
    together = [row[0] for row in finetune_stacked(small_model(), new, [Variant(1e-3), Variant(3e-3)], **options)]  # type: ignore[arg-type]
    for one, other in zip(alone, together, strict=True):
        assert other is not None
        assert one.tallies.keys() == other.tallies.keys()
        for name, items in one.tallies.items():
            assert torch.allclose(torch.tensor(items).float(), torch.tensor(other.tallies[name]).float(), atol=2e-3)


def test_what_a_bench_says_of_its_tasks() -> None:
    facts = describe(prepare(Recipe(model="tiny-bert", limit=100, device="cpu")))
    said = {one["name"]: (one["guess"], one["scored"], one["of"]) for one in facts["tasks"]}
    assert said["sentiment"] == (pytest.approx(0.5, abs=0.01), 100, 512)
    assert said["entities"] == (0.0, 100, 512)
    assert said["masked-lm"][0] == pytest.approx(task("masked-lm").guesser(load("tiny-bert", device="cpu"), 100))
    assert any(note.startswith("masked-lm: 100 of 512 test items") for note in facts["notes"])
