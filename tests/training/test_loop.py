"""The loop against a plain one written out here, its stops and its promises."""

import gc
import json
import math
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.models import memory
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Adapters
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers import EWC
from forgetlab.remedies.schedules import LayerwiseRates
from forgetlab.tasks import Classification, MaskedLM, Scores, Tally, Task
from forgetlab.training import loop
from forgetlab.training.method import Method, Part, Run
from tests.conftest import small_model


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def last(records):
    return list(records)[-1]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """Three threads for torch, whatever this machine has; the threads in which a task is scored."""
    before, seen, score = torch.get_num_threads(), set[int](), Task.scored

    def seeing(self: Task, model: Model, limit: int | None = None) -> tuple[Scores, Tally | None]:
        seen.add(threading.get_ident())
        assert torch.get_num_threads() == 1
        return score(self, model, limit)

    monkeypatch.setattr(Task, "scored", seeing)
    torch.set_num_threads(3)
    yield seen
    torch.set_num_threads(before)


def scored(methods: Sequence[Method] = ()) -> list[object]:
    watch = [task(name) for name in ("masked-lm", "entities", "acceptability", "minimal-pairs")]
    run = finetune(load("tiny-bert", device="cpu"), task("sentiment"), watch=watch, methods=methods, steps=4, every=2)
    return [(record.scores, record.drift, record.loss) for record in run]


def test_tasks_scored_side_by_side_have_the_same_bits(threads: set[int]) -> None:
    side_by_side = scored()
    assert len(threads - {threading.get_ident()}) > 1
    threads.clear()
    torch.set_num_threads(1)
    assert scored() == side_by_side
    assert threads == {threading.get_ident()}


def test_a_model_in_training_mode_is_scored_without_dropout_in_every_thread(threads: set[int]) -> None:
    model, watch = load("tiny-bert", device="cpu"), [task(name) for name in ("masked-lm", "entities", "acceptability")]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    torch.set_num_threads(1)
    expected = {one.name: one.score(model, 64) for one in watch}
    torch.set_num_threads(3)
    model.train()
    first = next(finetune(model, task("sentiment"), watch=watch, steps=1, limit=64)).scores
    assert {name: first[name] for name in expected} == expected


def test_a_model_that_is_switched_for_a_task_scores_one_task_at_a_time(threads: set[int]) -> None:
    scored([Adapters()])
    assert threads == {threading.get_ident()}


def test_a_task_of_ones_own_is_scored_by_the_run_itself(threads: set[int]) -> None:
    class Own(Classification):  # may do to the model what it likes
        def logits(self, model: Model, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
            if not torch.is_grad_enabled():
                seen.add(threading.get_ident())
            return super().logits(model, batch)

    seen = set[int]()
    data = task("acceptability")
    own = Own("own", data.train, data.test)
    next(finetune(load("tiny-bert", device="cpu"), task("sentiment"), watch=[own, task("entities")], steps=1, limit=32))
    assert seen == {threading.get_ident()}
    assert threads > seen


def test_another_run_that_gives_torch_its_threads_back_changes_no_bits(threads: set[int]) -> None:
    """The number of threads is the process's: a run that has paused sets it under one that goes on."""
    expected = scored()

    class Disturbing(Method):
        name = "disturbing"

        def after_step(self, run: Run) -> None:
            other = threading.Thread(target=torch.set_num_threads, args=(3,))
            other.start()
            other.join()

    assert scored([Disturbing()]) == expected


def test_where_no_thread_can_begin_the_run_scores_by_itself(threads: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(ThreadPoolExecutor):
        def submit(self, *_: object) -> None:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    expected = scored()
    threads.clear()
    monkeypatch.setattr(loop, "ThreadPoolExecutor", Refusing)
    assert scored() == expected
    assert threads == {threading.get_ident()}


def test_an_error_in_a_thread_is_the_runs_own(threads: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Scores:
        raise ForgetlabError("no score today")

    monkeypatch.setattr(MaskedLM, "scores_of", broken)
    alive = threading.active_count()
    with pytest.raises(ForgetlabError, match="no score today"):
        scored()
    assert threading.active_count() == alive


def test_it_does_what_a_plain_loop_does() -> None:
    new = task("sentiment", size=200)
    model = small_model()
    list(finetune(model, new, steps=7, lr=3e-3, batch_size=16, seed=5, every=3))

    plain = small_model()
    new.prepare(plain, seed=5)
    plain.train()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(200, generator=generator)
    for step in range(7):
        rows = order[step * 16 : (step + 1) * 16].tolist()
        texts = [new.train.texts[i] for i in rows]
        targets = torch.tensor([new.labels.index(new.train.labels[i]) for i in rows])
        batch = plain.tokenizer(texts, padding=True, return_tensors="pt")
        hidden = plain.body.bert(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        logits = plain.heads["sentiment"].linear((hidden * mask).sum(1) / mask.sum(1))
        torch.nn.functional.cross_entropy(logits, targets).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_same_seed_same_bits_and_another_seed_others() -> None:
    runs = []
    for seed in (1, 1, 2):
        model = small_model()
        torch.rand(seed)  # whatever the global generator has done
        final = last(
            finetune(model, task("sentiment", size=100), steps=6, seed=seed, watch=[task("masked-lm")], limit=32)
        )
        runs.append((weights(model), final.scores))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not same(runs[0][0], runs[2][0])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    for _ in finetune(small_model(), task("sentiment", size=64), steps=4, every=2):
        pass
    assert torch.equal(torch.rand(4), expected)


def test_watching_does_not_change_the_training() -> None:
    plain, watched = small_model(), small_model()
    list(finetune(plain, task("sentiment", size=100), steps=6, every=6))
    list(finetune(watched, task("sentiment", size=100), steps=6, every=1, watch=[task("masked-lm"), task("k-shot")]))
    a, b = weights(plain), weights(watched)
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_accumulation_gives_the_same_run() -> None:
    whole, split = small_model(), small_model()
    list(finetune(whole, task("sentiment", size=100), steps=5, batch_size=32, lr=1e-3))
    list(finetune(split, task("sentiment", size=100), steps=5, batch_size=32, lr=1e-3, accumulation=4))
    for a, b in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["entities", "masked-lm", "sentiment"])
def test_passes_of_unequal_length_add_up_to_the_gradient_of_the_whole_batch(name: str) -> None:
    class Seen(Method):
        def observe_gradients(self, run: Run) -> None:
            self.gradients = {n: p.grad.clone() for n, p in run.weights.items() if p.grad is not None}

    class Whole(Seen):
        """The mean loss over all the examples of the step, in one pass."""

        def before_step(self, run: Run) -> None:
            self.batches: list[Mapping[str, torch.Tensor]] = []

        def batch_penalty(self, task: Task, batch: Mapping[str, torch.Tensor], run: Run) -> None:
            self.batches.append(batch)

        def observe_gradients(self, run: Run) -> None:
            super().observe_gradients(run)
            counts = [len(batch["targets"]) for batch in self.batches]
            assert name == "sentiment" or len(set(counts)) > 1
            losses = [run.task.loss(run.model, batch) * len(batch["targets"]) for batch in self.batches]
            found = torch.autograd.grad(sum(losses) / sum(counts), list(run.weights.values()), allow_unused=True)
            self.expected = dict(zip(run.weights, found, strict=True))

    whole = Whole()
    list(finetune(small_model(), task(name, size=64), methods=[whole], steps=1, batch_size=16, accumulation=4))
    for weight, gradient in whole.gradients.items():
        torch.testing.assert_close(gradient, whole.expected[weight], rtol=1e-4, atol=1e-7)


def test_a_gradient_that_was_there_before_is_no_part_of_the_run() -> None:
    fresh, used = small_model(), small_model()
    new = task("sentiment", size=64)
    old = task("masked-lm")
    old.prepare(used)
    old.loss(used, old.batch(used, torch.arange(8), torch.Generator().manual_seed(0))).backward()
    for model in (fresh, used):
        list(finetune(model, new, steps=2))
    assert same(weights(fresh), weights(used))


def test_records(bert: Model) -> None:
    records = list(finetune(bert, task("sentiment", size=100), steps=25, every=10, watch=[task("masked-lm")], limit=16))
    assert [r.step for r in records] == [0, 10, 20, 25]
    assert [r.status for r in records] == ["running", "running", "running", "done"]
    assert records[0].loss is None
    assert records[0].drift == 0
    assert list(records[1].scores) == ["sentiment", "masked-lm"]
    assert records[-1].drift > records[1].drift > 0
    assert records[-1].drift == pytest.approx(math.hypot(*records[-1].drift_per_layer.values()))
    assert all(r.source == "live" for r in records)
    assert json.loads(json.dumps(records[-1].as_dict(), allow_nan=False))["step"] == 25


def test_drift_is_the_distance_from_the_weights_before(bert: Model) -> None:
    before = weights(bert)
    final = last(finetune(bert, task("sentiment", size=64), steps=5))
    after = weights(bert)
    assert "heads.sentiment.linear.weight" in after  # the new head is no drift: it had no past
    expected = math.sqrt(sum(float(((after[n] - before[n]).double() ** 2).sum()) for n in before))
    assert final.drift == pytest.approx(expected, rel=1e-4)


def test_closing_leaves_a_usable_model(bert: Model) -> None:
    before = weights(bert)
    run = finetune(bert, task("sentiment", size=64), steps=50, every=1)
    next(run)
    next(run)
    next(run)
    run.close()
    assert not bert.training
    assert all(p.grad is None and p.requires_grad for p in bert.parameters())
    assert not same(before, {n: p for n, p in weights(bert).items() if n in before})
    bert.restore()
    assert same(before, weights(bert))
    assert last(finetune(bert, task("sentiment", size=64), steps=2)).status == "done"


def test_a_diverging_run_says_so_and_can_be_undone(bert: Model) -> None:
    before = weights(bert)
    final = last(finetune(bert, task("sentiment", size=64), steps=40, lr=1e30, watch=[task("masked-lm")], limit=16))
    assert final.status == "diverged"
    assert "learning rate 1e+30" in final.message
    assert final.step < 40
    json.dumps(final.as_dict(), allow_nan=False)
    bert.restore()
    assert same(before, weights(bert))


def test_a_method_can_stop_the_run(bert: Model) -> None:
    class Enough(Method):
        name = "enough"

        def should_stop(self, record, run):
            return "seen enough" if record.step >= 4 else None

    final = last(finetune(bert, task("sentiment", size=64), steps=50, every=2, methods=[Enough()]))
    assert (final.step, final.status, final.message) == (4, "stopped", "seen enough")


def test_a_penalty_of_the_simple_kind_goes_through_autograd(bert: Model) -> None:
    class Shrink(Method):
        name = "shrink"

        def penalty(self, run):
            return 10.0 * (run.model.heads["sentiment"].linear.weight ** 2).sum()

    plain = small_model()
    list(finetune(plain, task("sentiment", size=64), steps=60, lr=1e-3))
    final = last(finetune(bert, task("sentiment", size=64), steps=60, lr=1e-3, methods=[Shrink()]))
    norm = float(bert.heads["sentiment"].linear.weight.detach().norm())
    assert norm < 0.7 * float(plain.heads["sentiment"].linear.weight.detach().norm())
    assert final.penalty["shrink"] == pytest.approx(10 * norm**2, rel=1e-4)


def test_each_example_comes_once_before_any_comes_again(bert: Model) -> None:
    seen: list[int] = []
    new = task("sentiment", size=48)
    original = new.batch
    new.batch = lambda model, index, generator: (seen.extend(index.tolist()), original(model, index, generator))[1]
    list(finetune(bert, new, steps=6, batch_size=16, every=6))
    assert sorted(seen[:48]) == list(range(48))
    assert sorted(seen[48:]) == list(range(48))
    assert seen[:48] != seen[48:]


def test_rows_are_those_of_the_pool_at_every_step(bert: Model) -> None:
    """Pools made anew at each step: others at the first five steps, then always the same one."""

    class Fresh(Method):
        name = "fresh"

        def augment(self, parts, run):
            start = 100 * min(run.step, 5)
            return [Part(run.task, 8, torch.arange(start, start + 40))]

    seen: list[list[int]] = []
    new = task("sentiment")
    original = new.batch
    new.batch = lambda model, index, generator: (seen.append(index.tolist()), original(model, index, generator))[1]
    list(finetune(bert, new, methods=[Fresh()], steps=10, batch_size=8, every=10, limit=4))
    for step, rows in enumerate(seen[:5]):
        assert set(rows) <= set(range(100 * step, 100 * step + 40))
    assert sorted(row for rows in seen[5:] for row in rows) == list(range(500, 540))


def test_parts_are_weighted_by_their_count(bert: Model) -> None:
    class Double(Method):
        name = "double"

        def augment(self, parts, run):
            return [Part(parts[0].task, 8), Part(parts[0].task, 8)]

    halves = small_model()
    list(finetune(halves, task("sentiment", size=64), steps=3, batch_size=16, methods=[Double()]))
    list(finetune(bert, task("sentiment", size=64), steps=3, batch_size=16))
    for a, b in zip(halves.parameters(), bert.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_causal_training_lowers_the_loss(gpt: Model) -> None:
    records = list(finetune(gpt, task("causal-lm:notices", size=200), steps=60, lr=3e-3, every=30))
    perplexities = [r.scores["causal-lm:notices"]["perplexity"] for r in records]
    assert perplexities[0] > 400  # near the vocabulary's size: it knows nothing
    assert perplexities[-1] < 0.2 * perplexities[0]


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_mixed_precision_learns_too(precision: str) -> None:
    exact, mixed = small_model(causal=True), small_model(causal=True)
    settings = {"steps": 30, "lr": 3e-3, "every": 30}
    a = last(finetune(exact, task("causal-lm:notices", size=200), **settings))
    b = last(finetune(mixed, task("causal-lm:notices", size=200), precision=precision, **settings))
    assert b.loss == pytest.approx(a.loss, rel=0.05)
    assert b.loss != a.loss


class Crowded:
    """A backbone's forward that has no memory for more rows than `most`."""

    def __init__(self, model: Model, most: int, error: type[Exception] = torch.cuda.OutOfMemoryError) -> None:
        self.rows: list[int] = []
        original = model.hidden

        def hidden(batch):
            self.rows.append(len(batch["input_ids"]))
            if len(batch["input_ids"]) > most:
                raise error("CUDA out of memory. Tried to allocate 2.00 GiB")
            return original(batch)

        model.hidden = hidden


@pytest.mark.slow
@pytest.mark.parametrize(("name", "causal"), [("sentiment", False), ("masked-lm", False), ("causal-lm:notices", True)])
def test_out_of_memory_the_batch_is_taken_in_halves(name: str, causal: bool) -> None:
    """The same examples, masks and steps: the weights are those of a run with room enough, but for rounding."""
    roomy, crowded = small_model(causal=causal), small_model(causal=causal)
    settings = {"steps": 4, "batch_size": 15, "every": 2, "limit": 20, "seed": 3}
    expected = list(finetune(roomy, task(name, size=64), **settings))
    seen = Crowded(crowded, most=8)
    records = list(finetune(crowded, task(name, size=64), **settings))
    for a, b in zip(roomy.parameters(), crowded.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    for a, b in zip(expected, records, strict=True):
        assert b.scores[name]["loss"] == pytest.approx(a.scores[name]["loss"], rel=1e-3)
        assert a.loss is None or b.loss == pytest.approx(a.loss, rel=1e-3)
    said = [[note for note in r.notes if "out of memory" in note] for r in records]
    assert [len(notes) for notes in said] == [0, 1, 0]
    assert said[1][0].startswith("out of memory at step 1: from there on each batch is taken in two halves")
    assert seen.rows.count(15) == 1  # tried once
    assert 8 in seen.rows


def test_out_of_memory_in_the_backward_pass_leaves_no_gradient_behind() -> None:
    roomy, crowded = small_model(), small_model()
    settings = {"steps": 1, "batch_size": 16, "accumulation": 2, "every": 1, "limit": 8}
    list(finetune(roomy, task("sentiment", size=64), **settings))
    original, passes = Task.loss, []

    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            passes.append(1)
            if len(passes) == 2:  # the first pass of the two has left its gradient
                raise RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")
            return grad

    new = task("sentiment", size=64)
    new.loss = lambda model, batch: Breaks.apply(original(new, model, batch))
    list(finetune(crowded, new, **settings))
    assert len(passes) == 2 + 4
    for a, b in zip(roomy.parameters(), crowded.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_out_of_memory_with_half_the_batch_says_what_to_lower(bert: Model) -> None:
    Crowded(bert, most=4)
    run = finetune(bert, task("sentiment", size=64), steps=2, batch_size=32, accumulation=2, limit=8)
    next(run)
    with pytest.raises(ForgetlabError) as caught:
        next(run)
    said = str(caught.value)
    assert said.startswith(
        "small-bert on cpu ran out of memory at step 1 with 16 examples at once and with half as many"
    )
    assert "raise accumulation (now 2; 8 trains the same in smaller passes)" in said
    assert all(p.grad is None and p.requires_grad for p in bert.parameters())
    assert not bert.training


def test_another_error_is_not_taken_for_it(bert: Model) -> None:
    Crowded(bert, most=8, error=type("Broken", (KeyError,), {}))
    with pytest.raises(KeyError):
        list(finetune(bert, task("sentiment", size=64), steps=1, batch_size=16, limit=4))


@pytest.mark.parametrize("name", ["masked-lm", "minimal-pairs", "k-shot", "entities"])
def test_scoring_with_little_memory_gives_the_same_scores(bert: Model, name: str) -> None:
    roomy, crowded = task(name), task(name)
    if name == "masked-lm":
        roomy, crowded = (MaskedLM("mine", None, roomy.test) for _ in range(2))  # without fixed gaps: drawn masks
    for one in (roomy, crowded):
        one.prepare(bert)
    expected = roomy.score(bert, 60)
    most = 512 if name == "minimal-pairs" else 20  # a row for each token hidden
    Crowded(bert, most=most)
    if name == "minimal-pairs":
        crowded.rows_at_once = 7
    got = crowded.score(bert, 60)
    assert got == {key: pytest.approx(value, rel=1e-5) for key, value in expected.items()}
    assert crowded.rows_at_once < 21


@pytest.mark.slow
def test_scoring_without_any_memory_says_so(bert: Model) -> None:
    Crowded(bert, most=0)
    with pytest.raises(ForgetlabError, match="ran out of memory at step 1"):
        list(finetune(bert, task("sentiment", size=64), steps=1))


@pytest.mark.slow
def test_compiled_it_learns_the_same() -> None:
    plain, compiled = small_model(), small_model()
    for model in (plain, compiled):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # a compiler draws its own
    settings = {"steps": 4, "batch_size": 16, "every": 2, "limit": 16, "watch": [task("masked-lm")]}
    expected = list(finetune(plain, task("sentiment", size=64), **settings))
    records = list(finetune(compiled, task("sentiment", size=64), compile=True, **settings))
    if any("no compiler works here" in note for note in records[0].notes):
        pytest.skip(records[0].notes[0])
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    assert records[-1].loss == pytest.approx(expected[-1].loss, rel=1e-3)
    assert records[-1].scores["masked-lm"]["loss"] == pytest.approx(expected[-1].scores["masked-lm"]["loss"], rel=1e-3)
    assert compiled.backbone._compiled_call_impl is None
    assert not any(p.grad is not None for p in compiled.parameters())


def test_where_no_compiler_works_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self, *args, **options):
        def call(*args, **kwargs):
            raise RuntimeError("InvalidCxxCompiler: no g++\nmore")

        self._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    plain, tried = small_model(), small_model()
    settings = {"steps": 2, "batch_size": 8, "limit": 8}
    list(finetune(plain, task("sentiment", size=64), **settings))
    records = list(finetune(tried, task("sentiment", size=64), compile=True, **settings))
    assert records[0].notes[1:] == [  # the first: how many test items are scored
        "compile: the model runs as written, no compiler works here (RuntimeError: InvalidCxxCompiler: no g++)"
    ]
    assert same(weights(plain), weights(tried))  # bit for bit: the trial drew nothing of the run's


def test_peak_memory_is_reported_where_it_is_counted(bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    final = last(finetune(bert, task("sentiment", size=64), steps=1))
    assert final.peak_memory is None
    assert final.as_dict()["peak_memory"] is None
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert memory.peak(torch.device("cuda")) == 7.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_peak_memory_on_cuda() -> None:
    model = small_model()
    final = last(finetune(model, task("sentiment", size=64), steps=2, device="cuda"))
    weighs = sum(4 * p.numel() for p in model.parameters())
    assert final.peak_memory > 4 * weighs  # weights, their copy, gradients and two moments


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda() -> None:
    cpu, cuda = small_model(), small_model()
    a = last(finetune(cpu, task("sentiment", size=100), steps=10, device="cpu"))
    b = last(finetune(cuda, task("sentiment", size=100), steps=10, device="cuda"))
    assert b.loss == pytest.approx(a.loss, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr must be a number above 0, got -1"),
        ({"lr": float("nan")}, "lr must be a number above 0, got nan"),
        ({"lr": "fast"}, "lr must be a number above 0, got 'fast'"),
        ({"steps": 0}, "steps must be a whole number above 0, got 0"),
        ({"steps": 2.5}, "steps must be a whole number above 0, got 2.5"),
        ({"batch_size": 65}, "batch_size 65 is larger than the 64 training examples of sentiment; use 64 or less"),
        ({"batch_size": 10, "accumulation": 3}, "batch_size 10 cannot be split evenly over 3 passes"),
        (
            {"methods": EWC([task("entities")])},
            "methods must be a list of Methods, such as [EWC(old, lam=10)], got EWC",
        ),
        (
            {"methods": ["ewc"]},
            "methods must be a list of Methods, such as [EWC(old, lam=10)], got one with a str in it",
        ),
        ({"watch": task("entities")}, 'watch must be a list of Tasks, such as [task("entities")], got Tagging'),
        ({"limit": 0}, "limit must be a whole number above 0, got 0"),
        ({"precision": "int8"}, "precision must be float32, bfloat16 or float16, got 'int8'"),
        ({"compile": "yes"}, "compile must be true or false (or 1 or 0), got 'yes'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not at hand here"),
        ({"watch": [task("sentiment")]}, "two tasks have the same name: sentiment, sentiment"),
        ({"watch": [task("causal-lm")]}, "needs a causal language model; small-bert has a masked"),
    ],
)
def test_bad_arguments(bert: Model, options: dict, message: str) -> None:
    with pytest.raises(ForgetlabError) as caught:
        finetune(bert, task("sentiment", size=64), **options)  # refused at the call, not at the first record
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not bert.heads  # nor has anything been made


def test_a_model_or_a_task_of_another_kind_is_refused(bert: Model) -> None:
    with pytest.raises(ForgetlabError, match=r"must be a forgetlab Model, got BertForMaskedLM: load\(folder\)"):
        finetune(bert.body, task("sentiment"))
    with pytest.raises(ForgetlabError, match=r'must be a Task, such as task\("sentiment"\) .*, got str'):
        finetune(bert, "reviews.csv")


def test_a_watched_task_with_a_new_head_is_noted(bert: Model) -> None:
    new, old = task("sentiment", size=64), task("entities", size=64)
    first = next(finetune(bert, new, watch=[old, task("masked-lm")], steps=2))
    assert [note for note in first.notes if "its head is new" in note] == [
        "entities: its head is new and has learned nothing that could be forgotten; fine-tune the model on it first"
    ]
    assert not any("its head is new" in note for note in next(finetune(bert, new, watch=[old], steps=2)).notes)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_trained_and_scored(kind: torch.dtype) -> None:
    model = load("tiny-bert", device="cpu").to(kind)
    records = list(finetune(model, task("sentiment", size=64), watch=[task("entities")], steps=2, limit=16))
    assert records[-1].status == "done"
    assert math.isfinite(records[-1].loss)


def test_a_zero_shot_task_cannot_be_trained(bert: Model) -> None:
    with pytest.raises(ForgetlabError, match="can be watched, not trained"):
        finetune(bert, task("minimal-pairs"))


def test_the_order_of_the_groups_does_not_matter(bert: Model) -> None:
    """Layer-wise rates that are all alike are plain fine-tuning, bit for bit: clipping rounds in one order."""
    ends = []
    for methods in ([], [LayerwiseRates(1.0)]):
        bert.restore()
        list(finetune(bert, task("sentiment"), methods=methods, steps=4, every=4, limit=8, clip=0.1))
        ends.append({name: p.detach().clone() for name, p in bert.named_parameters()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("methods", ["none", "ewc:examples=8", "si", "lwf", "lora"])
def test_a_run_that_is_over_gives_its_memory_back_at_once(methods: str) -> None:
    """Not only when Python next looks for cycles, which may be many runs and gigabytes later."""
    held: list[weakref.ref[object]] = []

    class Spy(Method):
        def setup(self, run: Run) -> None:
            held.extend([weakref.ref(run), weakref.ref(next(iter(run.anchor.values())))])

    old = [task("entities", size=64)]
    gc.collect()
    gc.disable()
    try:
        remedies = [Spy(), *make_methods(methods, old)]
        run = finetune(load("tiny-bert", device="cpu"), task("sentiment"), methods=remedies, watch=old, steps=2)
        next(run)
        assert None not in [ref() for ref in held]
        assert last(run).status == "done"
        del remedies  # a pull keeps what it pulls to as long as its owner keeps it
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


def test_runs_that_nobody_ended_say_nothing_when_the_interpreter_ends() -> None:
    """A script that breaks off a run, or a sequence of them, and keeps the variable."""
    script = """
from forgetlab import finetune, load, task
from forgetlab.experiments.sequences import run_joint, run_sequence
tasks = [task("sentiment", size=64), task("register", size=64)]
runs = [
    finetune(load("tiny-bert"), tasks[0], watch=tasks[1:], steps=4, every=1, limit=8),
    run_sequence(load("tiny-bert"), tasks, steps=2, every=1, limit=8),
    run_joint(load("tiny-bert"), tasks, steps=2, every=1, limit=8),
]
for run in runs:
    next(run)
    next(run)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
