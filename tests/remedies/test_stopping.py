"""Early stopping and the safety brake, on scores that a script sets and on a model that really forgets."""

import math
from collections.abc import Sequence

import pytest
import torch

from forgetlab import ForgetlabError, finetune, task
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Frozen
from forgetlab.remedies.schedules import GradualUnfreezing
from forgetlab.remedies.stopping import EarlyStopping, SafetyBrake
from forgetlab.tasks import Task
from forgetlab.training.method import Method
from forgetlab.training.record import Record
from tests.conftest import small_model

Weights = dict[str, torch.Tensor]


class Scripted(Task):
    """A watched task whose score at each record is written down beforehand; the last one is repeated."""

    kind = "scripted"

    def __init__(self, name: str, scores: Sequence[float], metric: str = "accuracy") -> None:
        self.name, self.metric, self.higher_is_better = name, metric, metric != "perplexity"
        self.scores, self.next = scores, 0

    def remarks(self, model, *splits, limit=None):
        return []

    def scored(self, model, limit=None):
        value = self.scores[min(self.next, len(self.scores) - 1)]
        self.next += 1
        return {self.metric: value, "loss": -1.0}, None

    def logits(self, model, batch):
        raise NotImplementedError

    def _collate(self, model, split, index, generator):
        raise NotImplementedError

    def _scored(self, model, limit):
        raise NotImplementedError


def new_task(scores: Sequence[float] | None = None) -> Task:
    """Sentiment, with its accuracy written down beforehand if `scores` are given."""
    new = task("sentiment", size=64)
    if scores is not None:
        new.scored = Scripted("sentiment", scores).scored  # type: ignore[method-assign]
    return new


def weights(model: Model) -> Weights:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def watch_run(model: Model, new: Task, **options) -> tuple[list[Record], list[Weights]]:
    """The records of a run and the weights at each of them."""
    records, kept = [], []
    for record in finetune(model, new, **{"steps": 10, "every": 1, "limit": 8, "batch_size": 4} | options):
        records.append(record)
        kept.append(weights(model))
    return records, kept


def brake_run(model: Model, scores: Sequence[float], metric: str = "accuracy", *, steps: int = 7, **settings):
    watch = [Scripted("old", scores, metric)]
    return watch_run(model, new_task(), methods=[SafetyBrake(**settings)], watch=watch, steps=steps)


def test_early_stopping_begins_at_the_first_score_that_is_a_number(bert: Model) -> None:
    scores = [math.nan, 0.5, 0.6, 0.6, 0.5, 0.5]
    run = EarlyStopping(patience=3, task="old")
    records, kept = watch_run(bert, new_task(), methods=[run], watch=[Scripted("old", scores, "accuracy")], steps=5)
    assert records[-1].message == "no improvement of old since step 2 (3 records); the weights of step 2 are back"
    assert same(kept[-1], kept[2])


# --- the safety brake ---


def test_the_chapters_example_stops_and_goes_back(bert: Model) -> None:
    records, kept = brake_run(bert, [0.85, 0.86, 0.82, 0.75, 0.82], drop=0.05)
    assert [r.step for r in records] == [0, 1, 2, 3, 3]
    assert [r.status for r in records] == ["running"] * 4 + ["stopped"]
    assert records[-1].message == (
        "the accuracy of old fell from 0.85 to 0.75 by step 3, more than the allowed 0.05 of it; "
        "the weights of step 2 are back"
    )
    assert same(kept[-1], kept[2])  # the new head's too
    assert not any(same(kept[-1], kept[i]) for i in (0, 1, 3))
    assert records[-1].drift == records[2].drift
    assert records[-1].scores["sentiment"] == records[2].scores["sentiment"]  # scored anew


@pytest.mark.parametrize(
    ("scores", "metric", "drop", "stops"),
    [
        ([0.85, 0.81], "accuracy", 0.05, False),  # the limit is 0.8075
        ([0.85, 0.80], "accuracy", 0.05, True),
        ([0.8, 0.72], "accuracy", 0.1, False),  # just the allowed drop
        ([0.8, 0.7199], "accuracy", 0.1, True),
        ([15.0, 15.7], "perplexity", 0.05, False),  # the limit is 15 / 0.95 = 15.79
        ([15.0, 15.9], "perplexity", 0.05, True),
        ([15.0, 3.0], "perplexity", 0.0, False),
        ([15.0, 29.9], "perplexity", 0.5, False),
        ([15.0, 45.0], "perplexity", 0.5, True),
        ([15.0, math.inf], "perplexity", 0.99, True),
        ([0.85, math.nan], "accuracy", 0.99, True),
        ([15.0, math.nan], "perplexity", 0.99, True),
        ([0.0, 0.0], "accuracy", 0.05, False),
        ([0.5, 0.5], "accuracy", 0, False),
    ],
)
def test_how_far_a_score_may_fall(bert: Model, scores, metric: str, drop: float, stops: bool) -> None:
    records, kept = brake_run(bert, scores, metric, drop=drop, steps=2)
    assert records[-1].status == ("stopped" if stops else "done")
    if stops:
        assert f"the {metric} of old {'rose' if metric == 'perplexity' else 'fell'} from" in records[-1].message
        assert "the weights of step 0 are back" in records[-1].message
        assert same(kept[-1], kept[0])  # where nothing was allowed since, the start


def test_the_fall_is_measured_from_the_start_and_not_from_the_best(bert: Model) -> None:
    assert brake_run(bert, [0.5, 0.9, 0.6, 0.49, 0.48], drop=0.05)[0][-1].status == "done"


def test_patience_counts_records_in_a_row(bert: Model) -> None:
    records, kept = brake_run(bert, [0.8, 0.7, 0.8, 0.7, 0.8, 0.6, 0.5], patience=2)
    assert records[-1].step == 6
    assert "from 0.8 to 0.5 by step 6" in records[-1].message
    assert same(kept[-1], kept[4])


def test_it_names_every_task_that_fell_and_looks_at_no_other(bert: Model) -> None:
    watch = [
        Scripted("one", [0.9, 0.5]),
        Scripted("two", [3.0, 3.0, 9.0], "perplexity"),
        Scripted("three", [0.4, 0.9]),
    ]
    records, _ = watch_run(bert, new_task(), methods=[SafetyBrake(patience=2)], watch=watch)
    assert records[-1].message.startswith(
        "the accuracy of one fell from 0.9 to 0.5, the perplexity of two rose from 3 to 9 by step 2"
    )
    for one in watch:
        one.next = 0
    records, _ = watch_run(small_model(), new_task(), methods=[SafetyBrake(task="three")], watch=watch)
    assert records[-1].status == "done"


def test_all_means_the_new_task_too(bert: Model) -> None:
    for which, status in ((None, "done"), ("all", "stopped"), ("sentiment", "stopped")):
        options = {"methods": [SafetyBrake(task=which)], "watch": [Scripted("old", [0.9])]}
        assert watch_run(small_model(), new_task([0.9, 0.9, 0.2]), **options)[0][-1].status == status


def test_without_a_fall_it_changes_nothing(bert: Model) -> None:
    plain = small_model()
    brake_run(bert, [0.9], steps=4)
    watch_run(plain, new_task(), steps=4)
    assert same(weights(bert), weights(plain))


def test_layers_that_were_off_when_kept_come_back_too(bert: Model) -> None:
    methods: list[Method] = [GradualUnfreezing(every=2), SafetyBrake()]
    watch = [Scripted("old", [0.9, 0.9, 0.9, 0.9, 0.2])]
    _, kept = watch_run(bert, new_task(), methods=methods, watch=watch, every=1)
    layer = "body.bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(kept[2][layer], kept[0][layer])
    _, kept = watch_run(
        small_model(), new_task(), methods=methods, watch=[Scripted("old", [0.9, 0.9, 0.9, 0.2])], every=1
    )
    assert not torch.equal(kept[3][layer], kept[2][layer])  # joined at step 2
    assert same(kept[-1], kept[2])


def test_it_holds_one_copy_of_what_is_trained(bert: Model) -> None:
    before = sum(p.numel() for p in bert.parameters())
    watch = [Scripted("old", [0.9])]
    full, _ = watch_run(bert, new_task(), methods=[SafetyBrake()], watch=watch, steps=1)
    head = 32 * 2 + 2
    assert full[0].costs["bytes"] == 4 * (before + head)
    frozen, _ = watch_run(small_model(), new_task(), methods=[Frozen(), SafetyBrake()], watch=watch, steps=1)
    assert frozen[0].costs["bytes"] == 4 * head


def test_a_real_run_keeps_what_it_is_told_to_keep() -> None:
    model, old, new = small_model(causal=True), task("causal-lm:howto", size=300), task("causal-lm:notices", size=300)
    list(finetune(model, old, steps=40, lr=5e-3, every=40, limit=8, batch_size=16))
    start = weights(model)
    options = {"watch": [old], "steps": 30, "lr": 3e-3, "every": 2, "limit": 16, "batch_size": 16}
    records = list(finetune(model, new, methods=[SafetyBrake(drop=0.2)], **options))
    ppl = [r.scores[old.name]["perplexity"] for r in records]
    final = records[-1]
    assert final.status == "stopped"
    assert ppl[-2] > ppl[0] / 0.8 >= ppl[-1]
    allowed = next(r for r in records if f"the weights of step {r.step} are back" in final.message)
    assert final.scores == allowed.scores
    assert final.drift == allowed.drift
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(start[name])
    naive = list(finetune(model, new, **options))[-1]
    assert naive.scores[old.name]["perplexity"] > 2 * final.scores[old.name]["perplexity"]


# --- early stopping ---


def early_run(model: Model, scores: Sequence[float], **settings):
    return watch_run(model, new_task(scores), methods=[EarlyStopping(**settings)])


def test_it_stops_after_patience_records_and_goes_back_to_the_best(bert: Model) -> None:
    records, kept = early_run(bert, [0.5, 0.6, 0.7, 0.65, 0.7, 0.69])
    assert [r.step for r in records] == [0, 1, 2, 3, 4, 5, 5]
    assert records[-1].status == "stopped"
    assert records[-1].message == "no improvement of sentiment since step 2 (3 records); the weights of step 2 are back"
    assert same(kept[-1], kept[2])
    assert not same(kept[-1], kept[5])


def test_an_improvement_starts_the_count_anew(bert: Model) -> None:
    scores = [0.5, 0.4, 0.4, 0.6, 0.5, 0.5, 0.7, 0.6, 0.6, 0.6]
    records, kept = early_run(bert, scores)
    assert records[-1].step == 9
    assert same(kept[-1], kept[6])


def test_min_change(bert: Model) -> None:
    records, kept = early_run(bert, [0.5, 0.6, 0.605, 0.609, 0.8], patience=2, min_change=0.01)
    assert records[-1].step == 3
    assert same(kept[-1], kept[1])


def test_without_restore_the_last_weights_stay(bert: Model) -> None:
    records, kept = early_run(bert, [0.5, 0.9, 0.8, 0.8], patience=2, restore=False)
    assert records[-1].message == "no improvement of sentiment since step 1 (2 records)"
    assert same(kept[-1], kept[3])
    assert records[0].costs["bytes"] == 0
    held = 4 * sum(p.numel() for p in small_model().parameters()) + 4 * (32 * 2 + 2)
    assert early_run(small_model(), [0.5])[0][0].costs["bytes"] == held


def test_a_score_that_is_no_number_is_no_improvement(bert: Model) -> None:
    records, kept = early_run(bert, [0.5, 0.6, math.nan, math.nan, 0.7], patience=2)
    assert records[-1].step == 3
    assert same(kept[-1], kept[1])


def test_of_an_old_task_whose_perplexity_should_fall(bert: Model) -> None:
    watch = [Scripted("old", [3.0, 2.0, 2.5, 2.1], "perplexity")]
    records, kept = watch_run(bert, new_task(), methods=[EarlyStopping(2, task="old")], watch=watch)
    assert records[-1].message.startswith("no improvement of old since step 1")
    assert same(kept[-1], kept[1])


def test_of_all_tasks_it_is_the_mean_in_which_old_ones_count(bert: Model) -> None:
    # (accuracy + 1 / perplexity) / 2 = 0.5, 0.7, 0.65, 0.55; the new task by itself improves to the end
    accuracies, perplexities = [0.5, 0.9, 0.95, 1.0], [2.0, 2.0, 1 / 0.35, 10.0]
    watch = [Scripted("old", perplexities, "perplexity")]
    records, kept = watch_run(bert, new_task(accuracies), methods=[EarlyStopping(2, task="all")], watch=watch)
    assert records[-1].step == 3
    assert records[-1].message.startswith("no improvement of sentiment, old since step 1")
    assert same(kept[-1], kept[1])
    watch[0].next = 0
    records, _ = watch_run(small_model(), new_task(accuracies), methods=[EarlyStopping(2)], watch=watch)
    assert records[-1].step == 5  # 1.0 at step 3, then two that equal it


def test_both_in_one_run_and_both_in_a_second_run(bert: Model) -> None:
    methods: list[Method] = [EarlyStopping(patience=2), SafetyBrake()]
    finals = []
    for model in (small_model(), small_model()):
        watch = [Scripted("old", [0.9, 0.9, 0.9, 0.9, 0.1])]
        records, kept = watch_run(model, new_task([0.5, 0.6, 0.7, 0.8, 0.9]), methods=methods, watch=watch)
        assert (records[-1].step, records[-1].status) == (4, "stopped")
        assert same(kept[-1], kept[3])
        finals.append(kept[-1])
    assert same(*finals)


# --- the loop ---


def test_a_run_can_be_stopped_before_its_first_step(bert: Model) -> None:
    class Asked(Method):
        def should_stop(self, record, run):
            asked.append((record.step, [t.name for t in run.watch]))
            return "already good enough"

    asked: list[tuple[int, list[str]]] = []
    records, kept = watch_run(bert, new_task(), methods=[Asked()], watch=[Scripted("old", [0.9])])
    assert asked == [(0, ["old"])]
    assert [(r.step, r.status, r.loss) for r in records] == [(0, "running", None), (0, "stopped", None)]
    assert same(kept[0], kept[1])


# --- bad input ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SafetyBrake(drop=1), "drop must be between 0 and 1, 1 excluded, got 1"),
        (lambda: SafetyBrake(drop=-0.1), "drop must be between 0 and 1, 1 excluded"),
        (lambda: SafetyBrake(drop=math.nan), "drop must be between 0 and 1, 1 excluded"),
        (lambda: SafetyBrake(drop="5 %"), "drop must be between 0 and 1, 1 excluded"),
        (lambda: SafetyBrake(patience=0), "patience must be a whole number above 0, got 0"),
        (lambda: EarlyStopping(patience=1.5), "patience must be a whole number above 0, got 1.5"),
        (lambda: EarlyStopping(patience=True), "patience must be a whole number above 0, got True"),
        (lambda: EarlyStopping(min_change=-1), "min_change must be a number of 0 or more, got -1"),
        (lambda: EarlyStopping(min_change=math.inf), "min_change must be a number of 0 or more, got inf"),
        (lambda: EarlyStopping(restore="best"), "restore must be true or false (or 1 or 0), got 'best'"),
    ],
)
def test_bad_settings(make, message: str) -> None:
    with pytest.raises(ForgetlabError) as caught:
        make()
    assert message in str(caught.value)


def test_a_task_that_is_not_in_the_run(bert: Model) -> None:
    watch = [Scripted("old", [0.9])]
    for method in (EarlyStopping(task="odl"), SafetyBrake(task="odl")):
        with pytest.raises(ForgetlabError, match="unknown task of the run 'odl'; did you mean 'old'?"):
            list(finetune(bert, new_task(), methods=[method], watch=watch))
    with pytest.raises(ForgetlabError, match="the safety brake has nothing to look at: give the run tasks to watch"):
        list(finetune(bert, new_task(), methods=[SafetyBrake()]))
