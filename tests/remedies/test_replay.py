"""Memories against chance, mixed batches against counts, written texts against slow sampling by hand."""

from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.models.model import Model
from forgetlab.remedies.replay import (
    ExperienceReplay,
    GenerativeReplay,
    Multitask,
    class_balanced,
    generative,
    reservoir,
)
from forgetlab.sources import Examples
from forgetlab.tasks import Classification, Tagging, Task
from forgetlab.tasks.writing import nucleus, sample, write
from forgetlab.training.method import Method, Part, Run
from forgetlab.training.step import Passes
from tests.conftest import small_model


class Counts(Method):
    """Notes what each batch is made of; comes after the method under test."""

    def __init__(self) -> None:
        self.batches: list[dict[str, int]] = []
        self.pools: list[int] = []

    def augment(self, parts, run):
        self.batches.append({part.task.name: part.count for part in parts})
        self.pools += [len(part.pool) for part in parts if part.pool is not None]
        return parts


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(model: Model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def untouchable(old: Task) -> Task:
    """The task without its data: whoever reads them fails."""
    old.train = None
    old.test = SimpleNamespace(kind="text", pairs=None)  # type: ignore[assignment]
    return old


def written(model: Model, old: Task, **options) -> Task:
    """The task that generative replay makes in place of `old`."""
    method = GenerativeReplay([untouchable(old)], **{"size": 40, **options})
    list(finetune(model, task("sentiment", size=64), steps=1, methods=[method]))
    return method._past[0][0]


# -- memories -----------------------------------------------------------------------------------------


def test_every_row_and_every_pair_of_rows_is_equally_likely_in_a_reservoir() -> None:
    size, memory, runs = 8, 3, 4000
    kept = [sorted(reservoir(size, memory, seeded(seed)).tolist()) for seed in range(runs)]
    for length in (1, 2):
        counts = Counter(group for rows in kept for group in combinations(rows, length))
        groups = list(combinations(range(size), length))
        expected = sum(counts.values()) / len(groups)
        chi2 = sum((counts[g] - expected) ** 2 / expected for g in groups)
        # rows drawn without replacement vary less than the statistic's own distribution, whose 99.99 % this is
        assert chi2 < {1: 29.9, 2: 63.2}[length]
    assert all(len(set(rows)) == memory for rows in kept)


def test_each_place_of_a_reservoir_is_replaced_as_often() -> None:
    first = torch.stack([reservoir(6, 2, seeded(seed)) for seed in range(3000)])
    for place in (0, 1):  # row 0 begins at place 0 and survives the four later rows with 2/6
        assert float((first[:, place] == place).float().mean()) == pytest.approx(2 / 6, abs=0.035)


def test_a_reservoir_larger_than_the_stream_keeps_all_of_it() -> None:
    assert reservoir(5, 9, seeded()).tolist() == [0, 1, 2, 3, 4]
    assert reservoir(0, 3, seeded()).tolist() == []
    assert torch.equal(reservoir(500, 20, seeded(1)), reservoir(500, 20, seeded(1)))
    assert not torch.equal(reservoir(500, 20, seeded(1)), reservoir(500, 20, seeded(2)))


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (3, {"a": 1, "b": 1, "c": 1}),
        (9, {"a": 3, "b": 3, "c": 3}),
        (10, {"a": 4, "b": 3, "c": 3}),
        (33, {"a": 15, "b": 15, "c": 3}),
        (34, {"a": 16, "b": 15, "c": 3}),
        (83, {"a": 50, "b": 30, "c": 3}),
        (200, {"a": 50, "b": 30, "c": 3}),
    ],
)
def test_a_balanced_memory_by_hand(memory: int, expected: dict[str, int]) -> None:
    labels = ("a",) * 50 + ("c",) * 3 + ("b",) * 30
    texts = tuple(f"text {i}" for i in range(83))
    examples = Examples(kind="labelled", texts=texts, labels=labels)
    rows = class_balanced(Classification("abc", examples, examples), memory, seeded()).tolist()
    assert len(set(rows)) == len(rows)
    assert Counter(labels[row] for row in rows) == expected


def test_a_balanced_memory_of_tags_goes_by_the_rarest_kind_in_a_text() -> None:
    tags = [("B-PER", "I-PER")] * 40 + [("B-PER", "B-LOC")] * 4 + [("O", "O")] * 20 + [("B-ORG", "O")] * 12
    examples = Examples(kind="tags", texts=(), words=(("x", "y"),) * len(tags), tags=tuple(tags))
    rows = class_balanced(Tagging("ner", examples, examples), 40, seeded()).tolist()
    assert Counter(tags[row][-1] for row in rows) == {"I-PER": 12, "B-LOC": 4, "O": 24}
    assert sum(row >= 64 for row in rows) == 12  # all of the texts with a company
    with pytest.raises(ForgetlabError, match="memory 3 is less than the 4 classes of ner: keep 4 or more"):
        class_balanced(Tagging("ner", examples, examples), 3, seeded())


def test_a_balanced_memory_is_a_reservoir_where_there_are_no_classes() -> None:
    old = task("masked-lm", size=300)
    assert torch.equal(class_balanced(old, 20, seeded()), reservoir(300, 20, seeded()))


# -- what the batches are made of ---------------------------------------------------------------------


def test_replay_takes_its_share_of_each_batch_and_the_tasks_take_turns(bert: Model) -> None:
    counts = Counts()
    old = [
        task("masked-lm", size=128),
        task("entities", size=128),
        task("k-shot"),
        task("minimal-pairs"),
    ]  # the last two have no loss
    methods = [ExperienceReplay(old, ratio=0.25, memory=20), counts]
    list(finetune(bert, task("sentiment", size=64), steps=4, batch_size=16, methods=methods))
    assert counts.batches == [{"sentiment": 12, name: 4} for name in ("masked-lm", "entities") * 2]
    assert set(counts.pools) == {20}


@pytest.mark.parametrize(("ratio", "passes"), [(0.3, 8), (0.3, 1), (0.01, 8), (0.95, 2), (0.5, 1)])
def test_the_share_is_exact_over_the_run_whatever_the_batch(bert: Model, ratio: float, passes: int) -> None:
    """passes: examples in each pass, all there are or those of one of several accumulated passes."""
    new, old = task("sentiment", size=64), [task("masked-lm", size=64), task("register", size=64)]
    replay = ExperienceReplay(old, ratio=ratio)
    run = SimpleNamespace(model=bert, task=new, generator=seeded(), seed=0)
    replay.setup(run)
    total = Counter[str]()
    for done in range(1, 201):
        parts = replay.augment([Part(new, passes)], run)
        assert sum(part.count for part in parts) == passes
        assert all(part.count > 0 for part in parts)
        total.update({part.task.name: part.count for part in parts})
        assert abs(passes * done - total["sentiment"] - ratio * passes * done) <= 0.5  # as near as whole numbers come
    assert abs(total["masked-lm"] - total["register"]) <= passes


def test_passes_of_one_example_are_trained_on() -> None:
    counts = Counts()
    methods = [ExperienceReplay([task("masked-lm", size=64)], ratio=0.25), counts]
    new = task("sentiment", size=64)
    list(finetune(small_model(), new, steps=2, batch_size=4, accumulation=4, limit=1, methods=methods))
    assert Counter(name for batch in counts.batches for name in batch) == {"sentiment": 6, "masked-lm": 2}


def test_replay_draws_from_its_memory_only(bert: Model) -> None:
    seen: set[int] = set()
    old = task("masked-lm", size=128)
    original = old.batch
    old.batch = lambda model, index, generator: (seen.update(index.tolist()), original(model, index, generator))[1]
    replay = ExperienceReplay([old], ratio=0.5, memory=10)
    list(finetune(bert, task("sentiment", size=64), steps=8, batch_size=16, methods=[replay]))
    assert len(seen) == 10


def test_balanced_replay_draws_from_a_balanced_memory(bert: Model) -> None:
    seen: list[int] = []
    old = task("register", size=128)
    original = old.batch
    old.batch = lambda model, index, generator: (seen.extend(index.tolist()), original(model, index, generator))[1]
    replay = ExperienceReplay([old], ratio=0.5, memory=10, sampling="balanced")
    list(finetune(bert, task("sentiment", size=64), steps=5, batch_size=4, methods=[replay]))
    assert len(set(seen)) == len(seen) == 10
    assert set(Counter(old.train.labels[row] for row in seen).values()) == {2}


@pytest.mark.parametrize("kind", [ExperienceReplay, GenerativeReplay])
def test_ratio_zero_is_the_naive_run(kind) -> None:
    runs = []
    for methods in ([], [kind([task("masked-lm", size=64), task("entities", size=64)], ratio=0)]):
        model = small_model()
        records = list(finetune(model, task("sentiment", size=64), steps=6, every=2, methods=methods))
        runs.append((weights(model), [(r.loss, r.scores, r.drift) for r in records], records[0].costs["bytes"]))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]


@pytest.mark.parametrize("kind", [ExperienceReplay, GenerativeReplay])
def test_the_same_seed_gives_the_same_bits(kind) -> None:
    size = {"memory": 30} if kind is ExperienceReplay else {"size": 30}
    runs = []
    for seed in (0, 0, 1):
        model = small_model()
        method = kind([task("masked-lm", size=200)], **size)
        list(finetune(model, task("sentiment", size=64), steps=3, seed=seed, methods=[method], limit=4))
        runs.append(model.backbone.state_dict()["embeddings.word_embeddings.weight"].clone())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_two_replays_share_a_batch(bert: Model) -> None:
    counts = Counts()
    methods = [
        ExperienceReplay([task("masked-lm", size=128)], 0.25),
        ExperienceReplay([task("entities", size=128)], 0.5),
        counts,
    ]
    list(finetune(bert, task("sentiment", size=64), steps=2, batch_size=16, methods=methods))
    assert counts.batches == [{"sentiment": 4, "masked-lm": 4, "entities": 8}] * 2


def test_replays_that_leave_nothing_for_the_new_task_are_refused(bert: Model) -> None:
    methods = [
        ExperienceReplay([task("masked-lm", size=128)], 0.5),
        ExperienceReplay([task("entities", size=128)], 0.75),
    ]
    with pytest.raises(ForgetlabError, match="replay with ratio 0.75 wants 12 of a batch of 16, .* leave it 8"):
        list(finetune(bert, task("sentiment", size=64), steps=2, batch_size=16, methods=methods))


def test_multitask_adds_a_batch_of_every_task(bert: Model) -> None:
    counts = Counts()
    methods = [Multitask([task("masked-lm", size=128), task("k-shot"), task("register", size=128)]), counts]
    list(finetune(bert, task("sentiment", size=64), steps=1, batch_size=16, methods=methods))
    assert counts.batches == [{"sentiment": 16, "masked-lm": 16, "register": 16}]


def test_the_weight_of_multitask_weighs_the_old_losses_gradient(bert: Model) -> None:
    """L = L_new + w L_old: what a weight of 3 adds to the gradient is three times what a weight of 1 adds."""
    new, old = task("register", size=64), task("acceptability", size=64)
    for one_task in (new, old):
        one_task.prepare(bert, 0)
    found = {}
    for weight in (None, 1.0, 3.0):
        methods: list[Method] = [] if weight is None else [Multitask([old], weight=weight)]
        run = Run.begin(bert, new, steps=1, batch_size=8, lr=1e-3, seed=0, methods=methods)
        for method in methods:
            method.setup(run)
        passes = Passes(run, 1, torch.amp.GradScaler(enabled=False))
        bert.zero_grad()
        passes.gradient(passes.draw())
        found[weight] = torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bert.backbone.parameters()]
        )
    one, three = found[1.0] - found[None], found[3.0] - found[None]
    assert one.norm() > 0.01
    torch.testing.assert_close(three, 3 * one, atol=1e-4, rtol=1e-3)
    with pytest.raises(ForgetlabError, match="weight"):
        Multitask([old], weight=0)


def test_the_cost_is_the_token_ids_of_the_memory(bert: Model) -> None:
    old = task("masked-lm", size=300)
    replay = ExperienceReplay([old], memory=25)
    records = list(finetune(bert, task("sentiment", size=64), steps=1, methods=[replay]))
    rows = reservoir(300, 25, seeded(0)).tolist()  # the first draws of the run
    tokens = sum(len(old.train.texts[row].split()) + 2 for row in rows)  # two marks; one word, one token here
    assert records[0].costs["bytes"] == 8 * tokens


def test_replay_keeps_what_naive_training_loses() -> None:
    """The point of it, on a small causal model that learned one register and then takes another."""
    kept = {}
    old, new = task("causal-lm:howto", size=500), task("causal-lm:notices", size=500)
    start = small_model(causal=True)
    list(finetune(start, old, steps=60, lr=5e-3, every=60))
    learned = start.snapshot()
    remedies = {
        "none": [],
        "replay": [ExperienceReplay([old], ratio=0.3)],
        "generative": [GenerativeReplay([old], ratio=0.3, size=200)],
    }
    for name, methods in remedies.items():
        start.restore(learned)
        *_, last = finetune(start, new, steps=40, lr=5e-3, every=40, methods=methods, watch=[old])
        kept[name] = last.scores[old.name]["perplexity"]
    assert kept["none"] > 2 * kept["replay"]
    assert kept["none"] > 2 * kept["generative"]


@pytest.mark.slow
def test_what_tiny_gpt_writes_keeps_an_encoder_from_forgetting() -> None:
    scores = {}
    old = [task("masked-lm"), task("entities")]
    for name, methods in {"none": [], "generative": [GenerativeReplay(old, ratio=0.1)]}.items():
        model = load("tiny-bert", device="cpu")
        *_, last = finetune(model, task("sentiment"), steps=150, every=150, methods=methods, watch=old, limit=256)
        scores[name] = last.scores
    assert scores["none"]["masked-lm"]["perplexity"] > 2 * scores["generative"]["masked-lm"]["perplexity"]
    assert scores["generative"]["entities"]["f1"] > scores["none"]["entities"]["f1"] + 0.05
    assert scores["generative"]["sentiment"]["accuracy"] > 0.8


# -- sampling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_the_nucleus_is_the_smallest_set_with_that_mass(top_p: float) -> None:
    rows = (3 * torch.randn(20, 50, generator=seeded(), dtype=torch.float64)).softmax(-1)
    for row, got in zip(rows.tolist(), nucleus(rows, top_p).tolist(), strict=True):
        kept, mass = set(), 0.0
        while mass < top_p:
            best = max((i for i in range(50) if i not in kept), key=row.__getitem__)
            kept.add(best)
            mass += row[best]
        assert got == [p if i in kept else 0.0 for i, p in enumerate(row)]


def greedy(model: Model, length: int) -> list[int]:
    """The most probable token again and again, each time from the whole text."""
    ids = [model.tokenizer.bos_token_id]
    while len(ids) <= length and ids[-1] != model.tokenizer.eos_token_id:
        with torch.no_grad():
            ids.append(int(model.body(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[1:]


@pytest.fixture(scope="module")
def tiny_gpt() -> Model:
    return load("tiny-gpt", device="cpu")


@pytest.mark.parametrize("options", [{"temperature": 1e-3}, {"temperature": 1e-300}, {"top_p": 1e-6}])
def test_a_low_temperature_or_a_small_nucleus_writes_the_most_probable_text(tiny_gpt: Model, options) -> None:
    ids = greedy(tiny_gpt, 48)
    expected = tiny_gpt.tokenizer.decode(ids, skip_special_tokens=True)
    assert len(ids) > 4
    assert write(tiny_gpt, 3, seed=0, **options) == [expected] * 3


def test_each_word_comes_from_the_nucleus_of_the_softened_distribution(tiny_gpt: Model) -> None:
    outside_of_plain = 0
    for text in write(tiny_gpt, 20, seed=0, temperature=1.5, top_p=0.5):
        ids = [tiny_gpt.tokenizer.bos_token_id, *tiny_gpt.tokenizer(text)["input_ids"]]
        with torch.no_grad():
            logits = tiny_gpt.body(input_ids=torch.tensor([ids])).logits[0]
        for here, following in zip(logits, ids[1:], strict=False):
            assert float(nucleus((here / 1.5).softmax(-1)[None], 0.501)[0, following]) > 0  # room for rounding
            outside_of_plain += float(nucleus(here.softmax(-1)[None], 0.5)[0, following]) == 0
    assert outside_of_plain > 0  # so that the temperature is seen to come first


def test_the_words_are_as_frequent_as_they_are_probable(gpt: Model) -> None:
    with torch.no_grad():
        gpt.body.transformer.wte.weight.mul_(10)  # far from uniform
        first = torch.tensor([[gpt.tokenizer.bos_token_id]])
        expected = nucleus((gpt.body(input_ids=first).logits[0] / 2).softmax(-1), 0.6)[0]
    expected = expected / expected.sum()
    drawn = [text for text, _ in sample(gpt, 4000, seeded(), temperature=2.0, top_p=0.6, max_tokens=1)]
    counts = Counter(drawn)
    words = {
        gpt.tokenizer.decode([i], skip_special_tokens=True): float(expected[i])
        for i in expected.nonzero().flatten().tolist()
    }
    assert set(counts) <= set(words)
    chi2 = sum((counts[w] - 4000 * p) ** 2 / (4000 * p) for w, p in words.items() if p > 0.005)
    assert chi2 < 2 * len(words) + 20


def test_a_text_is_said_to_have_ended_where_it_has(tiny_gpt: Model) -> None:
    short = sample(tiny_gpt, 30, seeded(), max_tokens=6)
    long = sample(tiny_gpt, 30, seeded())
    assert all(ended and text.endswith(".") for text, ended in long)
    assert any(not ended for _, ended in short)
    assert all(len(text.split()) == 6 for text, ended in short if not ended)


# -- generative replay --------------------------------------------------------------------------------


def test_the_class_of_a_written_text_is_what_the_old_model_predicts(bert: Model) -> None:
    old = task("register", size=64)
    old.prepare(bert)
    with torch.no_grad():
        bert.heads["register"].linear.weight.mul_(50)  # so that the classes differ
        relived = _relive(bert, old)
        expected = []
        for text in relived.train.texts:
            batch = bert.tokenizer(text, return_tensors="pt")
            expected.append(old.labels[int(bert.logits(batch, "register").argmax())])
    assert isinstance(relived, Classification)
    assert list(relived.train.labels) == expected
    assert len(set(expected)) > 1
    assert relived.labels == old.labels  # those that no text has, too
    assert relived.name == old.name


def test_the_tags_of_a_written_text_are_what_the_old_model_predicts(bert: Model) -> None:
    old = task("entities", size=64)
    old.prepare(bert)
    with torch.no_grad():
        bert.heads["entities"].linear.weight.mul_(50)
        relived = _relive(bert, old)
        for words, tags in zip(relived.train.words, relived.train.tags, strict=True):
            batch = bert.tokenizer(" ".join(words), return_tensors="pt")
            numbers = bert.logits(batch, "entities")[0, 1:-1].argmax(-1)
            assert tags == tuple(old.labels[i] for i in numbers)
    assert isinstance(relived, Tagging)
    assert relived.labels == old.labels
    assert len({tag for tags in relived.train.tags for tag in tags}) > 1


def _relive(model: Model, old: Task) -> Task:
    method = GenerativeReplay([untouchable(old)], size=40)
    run = SimpleNamespace(model=model, generator=seeded())
    [(relived, rows)] = method.recall(run)
    assert rows.tolist() == list(range(relived.size()))
    return relived


def test_a_written_text_of_many_kinds_of_words_gets_a_tag_for_each(bert: Model, monkeypatch) -> None:
    long = "anna 's uncle-in-law " + " ".join(["anna"] * 80) + " jordan."
    monkeypatch.setattr(generative, "sample", lambda *_: [(long, True)])
    monkeypatch.setattr(generative, "AT_ONCE", 1)
    task("entities").prepare(bert)
    relived = _relive(bert, task("entities", size=64))
    assert relived.train.words[0][:4] == ("anna", "'", "s", "uncle-in-law")
    assert relived.train.words[0][-2:] == ("jordan", ".")
    assert len(relived.train.tags[0]) == len(relived.train.words[0])  # also of those beyond the model's length
    relived.loss(bert, relived.batch(bert, torch.arange(8), seeded()))


def test_language_models_replay_the_texts_themselves(bert: Model, gpt: Model) -> None:
    relived = written(bert, task("masked-lm", size=64), max_tokens=30)
    assert relived.floor is None
    texts = relived.train.texts
    assert len(texts) == 40
    assert len(set(texts)) > 20
    tiny = load("tiny-gpt", device="cpu")  # who writes for an encoder of the embedded world
    # the first draws of the run are the writer's
    assert list(texts) == [text for text, _ in sample(tiny, 40, seeded(0), max_tokens=30)]


def test_a_causal_model_writes_by_itself_and_adds_no_end_where_it_was_cut_off(gpt: Model) -> None:
    with torch.no_grad():
        gpt.body.transformer.ln_f.bias.copy_(3 * gpt.body.transformer.wte.weight[gpt.tokenizer.eos_token_id])
        gpt.body.transformer.wte.weight[gpt.tokenizer.eos_token_id] *= 12  # now and then a text ends
    expected = [(t, e) for t, e in sample(gpt, 40, seeded(0), max_tokens=8) if len(t.split()) > 1]
    method = GenerativeReplay([untouchable(task("causal-lm", size=64))], size=40, max_tokens=8)
    gpt.train()
    gpt.body.transformer.h.eval()
    modes = {module: module.training for module in gpt.modules()}
    [(relived, _)] = method.recall(SimpleNamespace(model=gpt, generator=seeded(0)))
    assert all(module.training == mode for module, mode in modes.items())
    gpt.eval()
    assert list(relived.train.texts) == [text for text, _ in expected]
    assert 0 < sum(ended for _, ended in expected) < len(expected)
    for row, (text, ended) in enumerate(expected):
        batch = relived.batch(gpt, torch.tensor([row]), seeded())
        ids = gpt.tokenizer(text)["input_ids"]
        assert batch["targets"].tolist() == [*ids, *[gpt.tokenizer.eos_token_id] * ended]


def test_many_texts_are_written_in_turns_and_empty_ones_dropped(gpt: Model, monkeypatch) -> None:
    asked = []

    def writer(model, count, *rest):
        asked.append((count, *rest[1:]))
        return [("anna slept .", True)] * (count - 1) + [("anna", True)]

    monkeypatch.setattr(generative, "sample", writer)
    method = GenerativeReplay([task("causal-lm")], size=300, temperature=0.7, top_p=0.9, max_tokens=20)
    [(relived, _)] = method.recall(SimpleNamespace(model=gpt, generator=seeded()))
    assert asked == [(128, 0.7, 0.9, 20), (128, 0.7, 0.9, 20), (44, 0.7, 0.9, 20)]
    assert relived.size() == 297


def test_written_examples_take_their_share_and_cost_their_tokens(bert: Model) -> None:
    counts = Counts()
    for name in ("register", "entities"):
        task(name).prepare(bert)
    bert.train()
    method = GenerativeReplay([task("register"), task("entities"), task("entailment"), task("k-shot")], 0.25, size=50)
    modes = []
    counts.setup = lambda run: modes.append(run.model.training)  # type: ignore[method-assign]
    records = list(finetune(bert, task("sentiment", size=64), steps=4, batch_size=16, methods=[method, counts]))
    assert counts.batches == [{"sentiment": 12, name: 4} for name in ("register", "entities") * 2]
    assert counts.pools == [50] * 4
    tokens = sum(len(text.split()) + 2 for text in method._past[0][0].train.texts)
    assert records[0].costs["bytes"] == 8 * 2 * tokens  # each task holds the texts
    assert modes == [True]  # left as it was


def test_a_writer_can_be_given(bert: Model, gpt: Model) -> None:
    texts = written(bert, task("masked-lm"), writer=gpt).train.texts
    assert list(texts) == [text for text, _ in sample(gpt, 40, seeded(0))]
    assert "small-gpt" in repr(GenerativeReplay([task("masked-lm")], writer=gpt))


# -- bad input ----------------------------------------------------------------------------------------

RATIO = "ratio must be between 0 and 1, 1 excluded, got"


@pytest.mark.parametrize("kind", [ExperienceReplay, GenerativeReplay])
@pytest.mark.parametrize(
    ("options", "message"),
    [({"ratio": r}, RATIO) for r in (1, -0.5, 1.5, "half", None, True, float("nan"), float("inf"))]
    + [
        ({"old": "entities"}, "old must be a list of Tasks"),
        ({"old": task("entities")}, "old must be a list of Tasks"),
        ({"old": []}, "nothing to replay: no task given"),
        ({"old": [task("minimal-pairs"), task("k-shot")]}, "nothing to replay: minimal-pairs, k-shot given"),
    ],
)
def test_bad_replay(kind, options, message: str) -> None:
    with pytest.raises(ForgetlabError, match=message):
        kind(**{"old": [task("masked-lm")], **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"memory": m}, f"memory must be a whole number above 0, got {m}") for m in (0, -3, 2.5, True)]
    + [({"sampling": "ballanced"}, "unknown sampling 'ballanced'; did you mean 'balanced'?")],
)
def test_bad_experience_replay(options, message: str) -> None:
    with pytest.raises(ForgetlabError) as caught:
        ExperienceReplay([task("masked-lm")], **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": t}, "temperature must be between 0 and 1000, 0 excluded, got")
        for t in (0, -1, float("nan"), "hot", True)
    ]
    + [({"top_p": p}, "top_p must be between 0 and 1, 0 excluded, got") for p in (0, -0.1, 1.01, float("nan"), None)]
    + [
        ({"size": 0}, "size must be a whole number above 0, got 0"),
        ({"max_tokens": 0}, "max_tokens must be a whole number above 0, got 0"),
        ({"writer": 3}, "writer must be a causal model or the name of one, such as 'tiny-gpt', got 3"),
        ({"writer": small_model()}, "writer must be a causal language model; small-bert is none"),
        ({"old": [task("entailment")]}, "nothing to replay: entailment given, a task on single texts expected"),
    ],
)
def test_bad_generative_replay(options, message: str) -> None:
    with pytest.raises(ForgetlabError) as caught:
        GenerativeReplay(**{"old": [task("masked-lm")], **options})
    assert message in str(caught.value)


def test_bad_sampling(gpt: Model) -> None:
    with pytest.raises(ForgetlabError, match="temperature must be between 0 and 1000, 0 excluded, got 0"):
        write(gpt, 1, seed=0, temperature=0)
    with pytest.raises(ForgetlabError, match="top_p must be between 0 and 1, 0 excluded, got 2"):
        write(gpt, 1, seed=0, top_p=2)
    gpt.tokenizer.bos_token = gpt.tokenizer.eos_token = None
    with pytest.raises(ForgetlabError, match="small-gpt cannot write: its tokenizer has neither"):
        write(gpt, 1, seed=0)


def test_generative_replay_that_cannot_work_is_refused_before_the_first_step(bert: Model, monkeypatch) -> None:
    def fails(old: str, message: str, model: Model = bert, **options) -> None:
        records = finetune(model, task("sentiment", size=64), methods=[GenerativeReplay([task(old)], **options)])
        with pytest.raises(ForgetlabError, match=message):
            next(records)

    fails("entities", "small-bert has no head 'entities' to label texts with: let it learn entities first")
    fails("causal-lm", "needs a causal language model")
    fails("masked-lm", "unknown model 'tiny-gtp'; did you mean 'tiny-gpt'", writer="tiny-gtp")
    fails("masked-lm", "writer must be a causal language model; tiny-bert is none", writer="tiny-bert")
    monkeypatch.setattr(generative, "sample", lambda model, count, *_: [("one", True)] * count)
    fails("masked-lm", "only 0 of the 30 texts that tiny-gpt wrote have two words or more", size=30)
    monkeypatch.setattr(generative, "sample", lambda model, count, *_: [("xyzzy plugh xyzzy", True)] * count)
    fails("masked-lm", "60% of the words that tiny-gpt writes are unknown to small-bert", size=30)
    bert.tokenizer.add_tokens(["zebra"])
    fails("masked-lm", "small-bert cannot write texts: give a writer")


def test_a_balanced_memory_that_is_too_small_is_refused_before_the_first_step(bert: Model) -> None:
    replay = ExperienceReplay([task("register")], memory=4, sampling="balanced")
    with pytest.raises(ForgetlabError, match="memory 4 is less than the 5 classes of register: keep 5 or more"):
        next(finetune(bert, task("sentiment", size=64), methods=[replay]))


def test_multitask_of_nothing_is_refused() -> None:
    with pytest.raises(ForgetlabError, match="nothing to replay: cloze given, a task with training data expected"):
        Multitask([task("cloze")])
