"""Remedies inside transformers' Trainer: the weights of finetune, at any accumulation, and after a resume."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import (
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from forgetlab import finetune, load, task
from forgetlab.errors import ForgetlabError
from forgetlab.importance import fisher_diagonal
from forgetlab.models.model import Model
from forgetlab.remedies.architectures import Frozen, LoRA
from forgetlab.remedies.interpolation import WeightInterpolation
from forgetlab.remedies.projection import PCGrad
from forgetlab.remedies.regularizers import EWC, L2SP, SI, KLAnchor
from forgetlab.remedies.replay import ExperienceReplay, Multitask
from forgetlab.remedies.schedules import GradualUnfreezing, LayerwiseRates, Warmup
from forgetlab.remedies.stopping import SafetyBrake
from forgetlab.sources.shipped import data_folder
from forgetlab.tasks import Task
from forgetlab.training.huggingface import checkpoints
from forgetlab.training.huggingface.trainer import ForgettingTrainer
from forgetlab.training.method import Method, Run
from forgetlab.training.record import Record
from tests.conftest import small_model

STEPS, BATCH, LR = 6, 8, 3e-3
NEW, OLD = "causal-lm:notices", "causal-lm:news"


class Sequential:
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(train_dataset or self.train_dataset)


class InOrder(Sequential, ForgettingTrainer):
    pass


class PlainInOrder(Sequential, Trainer):
    pass


def rows_of(model: Model, name: str, count: int) -> list[dict[str, list[int]]]:
    encoded = task(name).encoded(model, "train")
    lengths = encoded.lengths[:count].tolist()
    ids = encoded.columns["input_ids"]
    return [{"input_ids": ids[i, :length].tolist()} for i, length in enumerate(lengths)]


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100  # nothing comes before it: the Trainer would count it as a prediction
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    usual = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    }
    return TrainingArguments(**{**usual, **more})


def trained(folder: Path, methods: list[Method], model: Model | None = None, **more: Any) -> InOrder:
    model = model or small_model(causal=True)
    resume = more.pop("resume", None)
    callbacks = more.pop("callbacks", None)
    trainer = InOrder(
        model,
        arguments(folder, **more),
        train_dataset=rows_of(model, NEW, BATCH * STEPS),
        data_collator=collate,
        methods=methods,
        watch=[task(OLD)],
        limit=16,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer: ForgettingTrainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.together.named_parameters()}


def by_finetune(methods: list[Method], monkeypatch: pytest.MonkeyPatch) -> tuple[Model, list[Any]]:
    """The same batches through finetune: its rows in order instead of drawn."""
    model, new = small_model(causal=True), task(NEW)
    drawn = new.batch
    seen = iter(torch.arange(BATCH * STEPS).split(BATCH))
    monkeypatch.setattr(new, "batch", lambda m, index, generator: drawn(m, next(seen), generator))
    records = list(
        finetune(
            model, new, methods=methods, watch=[task(OLD)], steps=STEPS, lr=LR, batch_size=BATCH, every=2, limit=16
        )
    )
    return model, records


def in_order(old: Task) -> Task:
    """The task with its rows in their order instead of drawn, so that it does not matter what else is drawn."""
    drawn, places = old.batch, iter(range(0, 10**6, BATCH))

    def batch(model: Model, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return drawn(model, next(places) + torch.arange(len(index)), generator)

    old.batch = batch  # type: ignore[method-assign]
    return old


def fisher() -> dict[str, Tensor]:
    return fisher_diagonal(small_model(causal=True), task(OLD), estimator="empirical", examples=16)


def close(a: dict[str, Tensor], b: dict[str, Tensor], start: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Equal but for rounding, in units of the way gone: Adam divides a gradient's rounding by its size.

    The gradient of a key's bias is 0 (softmax does not see it), so that Adam makes whole steps of its rounding.
    """
    assert a.keys() == b.keys()
    a, b, start = (
        {n: t.view(3, -1)[[0, 2]] if n.endswith("c_attn.bias") else t for n, t in weights.items()}
        for weights in (a, b, start)
    )
    apart = sum(float(((a[n] - b[n]) ** 2).sum()) for n in a) ** 0.5
    moved = sum(float(((b[n] - start[n]) ** 2).sum()) for n in b) ** 0.5
    assert moved > 0.5  # something was learned
    assert apart < tolerance * moved, apart / moved


def gpt_start() -> dict[str, Tensor]:
    return {n: p.detach() for n, p in small_model(causal=True).named_parameters()}


CASES: dict[str, Any] = {
    "none": list,
    "ewc": lambda: [EWC(fisher(), 1e4)],
    "ewc, proximal": lambda: [EWC(fisher(), 1e4, proximal=True)],
    "l2sp and rates": lambda: [L2SP(0.5), LayerwiseRates(2.0), Warmup(0.5)],
    "si": lambda: [SI([task(OLD)], walk=3)],
    "kl-anchor": lambda: [KLAnchor(0.5)],
    "pcgrad": lambda: [PCGrad([in_order(task(OLD))])],
    "unfreezing": lambda: [GradualUnfreezing(2)],
}


@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_those_of_finetune(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trained(tmp_path, CASES[name]())
    model, records = by_finetune(CASES[name](), monkeypatch)
    ours = {n: p.detach() for n, p in model.named_parameters()}
    close(weights(trainer), ours, gpt_start())
    assert [r.step for r in trainer.records] == [r.step for r in records]
    for theirs, own in zip(trainer.records, records, strict=True):
        assert theirs.scores[OLD]["perplexity"] == pytest.approx(own.scores[OLD]["perplexity"], rel=1e-5)
        assert theirs.drift == pytest.approx(own.drift, rel=1e-4, abs=1e-9)
        assert theirs.penalty == pytest.approx(own.penalty, rel=1e-3, abs=1e-9)


@pytest.mark.slow
@pytest.mark.skipif("activation_checkpointing" not in TrainingArguments.__dataclass_fields__, reason="an older name")
def test_activation_checkpointing_and_accumulation_change_nothing(tmp_path: Path) -> None:
    """Bit for bit: what is computed a second time is the same; with EWC's Fisher, replay and an anchor at once."""
    runs, passes = [], []
    for on in (False, True):
        model, count = small_model(causal=True), [0]
        cast(Any, model.body).transformer.h[0].mlp.register_forward_pre_hook(lambda *_, n=count: n.append(1))
        methods = [EWC([task(OLD)], 1e3, examples=16), ExperienceReplay([task(OLD)], ratio=0.5), KLAnchor(0.5)]
        halves = {"per_device_train_batch_size": BATCH // 2, "gradient_accumulation_steps": 2}
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "`gradient_checkpointing` is deprecated")
            runs.append(trained(tmp_path / str(on), methods, model, activation_checkpointing=on, **halves))
        passes.append(len(count))
    # each pass of a step anew: that of the new texts and that of the old ones, two of each to a step
    assert passes[1] - passes[0] == STEPS * 2 * 2
    off, on = runs
    assert all(torch.equal(value, weights(on)[name]) for name, value in weights(off).items())
    for one, other in zip(off.records, on.records, strict=True):
        assert (one.loss, one.scores, one.drift, one.penalty) == (other.loss, other.scores, other.drift, other.penalty)
    assert min(on.records[-1].penalty[name] for name in ("ewc", "kl-anchor")) > 0


def test_a_penalty_makes_a_difference(tmp_path: Path) -> None:
    free, held = trained(tmp_path, []), trained(tmp_path, CASES["ewc"]())
    assert held.records[-1].drift < 0.9 * free.records[-1].drift


@pytest.mark.parametrize("name", ["none", "ewc", "kl-anchor"])
def test_accumulation_makes_no_difference(name: str, tmp_path: Path) -> None:
    """num_items_in_batch weighs every token alike, so that four passes are one."""
    once = trained(tmp_path, CASES[name]())
    four = trained(tmp_path, CASES[name](), per_device_train_batch_size=BATCH // 4, gradient_accumulation_steps=4)
    tolerance = 1e-5 if name != "kl-anchor" else 0.05  # its mean is over each pass's own tokens
    close(weights(once), weights(four), gpt_start(), tolerance)


@pytest.mark.parametrize("name", ["ewc", "replay"])
def test_a_classifier_that_does_not_count_weighs_as_much_at_any_accumulation(name: str, tmp_path: Path) -> None:
    """transformers' classifiers take num_items_in_batch and ignore it: the Trainer then adds up means."""

    class Seen(Method):
        def adjust_gradients(self, run: Run) -> None:
            self.norms = {n: float(p.grad.norm()) for n, p in run.weights.items() if p.grad is not None}

    def norms(batch: int, accumulation: int) -> dict[str, float]:
        seen, old = Seen(), in_order(task("entities", size=64))
        methods = {"ewc": EWC([old], lam=1e3, examples=16), "replay": ExperienceReplay([old], ratio=0.5, memory=64)}
        before = load("tiny-bert", device="cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = BertForSequenceClassification.from_pretrained(data_folder() / "models" / "tiny-bert", num_labels=2)
        new = task("sentiment", size=32)
        rows = [
            {**before.tokenizer(text), "label": int(label == "positive")}
            for text, label in zip(new.train.texts, new.train.labels, strict=True)
        ]
        settings = arguments(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        settings.max_steps, settings.label_names = 1, ["labels"]
        collator = DataCollatorWithPadding(before.tokenizer)
        InOrder(
            model,
            settings,
            train_dataset=rows,
            data_collator=collator,
            processing_class=before.tokenizer,
            methods=[methods[name], seen],
            watch=[old],
            before=before,
        ).train()
        return seen.norms

    once, four = norms(32, 1), norms(8, 4)
    layer = "body.bert.encoder.layer.0.output.dense.weight"
    assert four[layer] == pytest.approx(once[layer], rel=0.02 if name == "ewc" else 0.3)  # four draws of old texts


def test_replay_takes_its_share_of_each_batch(tmp_path: Path) -> None:
    trainer = trained(tmp_path, [ExperienceReplay([task(OLD)], ratio=0.5, memory=32)])
    replay = trainer.methods[0]
    assert (replay._seen, replay._replayed) == (BATCH * STEPS, BATCH * STEPS // 2)  # type: ignore[attr-defined]
    naive = trained(tmp_path, [])
    assert trainer.records[-1].scores[OLD]["perplexity"] < naive.records[-1].scores[OLD]["perplexity"]


def test_a_part_counts_for_its_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L_new + w L_old with w = 3, as finetune has it; with w = 1 other weights come out."""

    def weighed(weight: float) -> list[Method]:
        return [Multitask([in_order(task(OLD))], weight=weight)]

    heavy, usual = trained(tmp_path, weighed(3.0)), trained(tmp_path, weighed(1.0))
    model, _ = by_finetune(weighed(3.0), monkeypatch)
    ours = {n: p.detach() for n, p in model.named_parameters()}
    close(weights(heavy), ours, gpt_start())
    apart = sum(float((p - ours[n]).square().sum()) for n, p in weights(usual).items()) ** 0.5
    assert apart > 0.1


# -- checkpoints ------------------------------------------------------------------------------------


class Killed(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        raise KeyboardInterrupt


RESUMED: dict[str, Any] = {
    **{name: CASES[name] for name in ("ewc", "si", "unfreezing", "l2sp and rates")},
    "pcgrad": lambda: [PCGrad([task(OLD)])],
    "replay": lambda: [ExperienceReplay([task(OLD)], ratio=0.25, memory=20)],
    # cut after three turns, when the second task is next, whose rows are fewer
    "replay of two": lambda: [ExperienceReplay([task(OLD, size=200), task("causal-lm", size=50)], ratio=0.5)],
    "brake": lambda: [SafetyBrake(0.9)],
}


KINDS = ("si", "l2sp and rates", "replay of two", "brake")  # of what a checkpoint holds: a remedy's own, rates, draws


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in KINDS else pytest.mark.long) for name in RESUMED]
)
def test_killed_and_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "linear"}
    whole = trained(tmp_path / "whole", RESUMED[name](), **saving)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", RESUMED[name](), callbacks=[Killed()], **saving)
    again = trained(tmp_path / "cut", RESUMED[name](), resume=True, **saving)
    ours, theirs = weights(again), weights(whole)
    for key in theirs:
        assert torch.equal(ours[key], theirs[key]), key
    assert again.records[-1].scores[OLD] == whole.records[-1].scores[OLD]
    assert looks(again) == looks(whole)
    for method, other in zip(again.methods, whole.methods, strict=True):
        for attribute in method.saved:
            _same(getattr(method, attribute), getattr(other, attribute))


@pytest.mark.parametrize("drop", [True, False])
def test_a_resumed_run_of_epochs_has_as_many_steps(drop: bool, tmp_path: Path) -> None:
    """Six batches and a part of one to the epoch, in passes of two: what is at the last step only must come then."""

    def run(folder: Path, resume: bool = False, callbacks: Any = None) -> InOrder:
        model = small_model(causal=True)
        trainer = InOrder(
            model,
            arguments(
                folder,
                max_steps=-1,
                num_train_epochs=2,
                dataloader_drop_last=drop,
                gradient_accumulation_steps=2,
                save_strategy="steps",
                save_steps=3,
            ),
            train_dataset=rows_of(model, NEW, 6 * BATCH + 2),
            data_collator=collate,
            methods=[WeightInterpolation(0.0)],
            callbacks=callbacks,
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", callbacks=[Killed()])
    again = run(tmp_path / "cut", resume=True)
    assert again._run is not None
    assert again._run.steps == again.state.max_steps == whole.state.max_steps == (6 if drop else 8)
    assert again.records[-1].drift == whole.records[-1].drift == 0.0  # all the way back, after the last step


def looks(trainer: ForgettingTrainer) -> list[dict[str, float]]:
    return [logs for logs in trainer.state.log_history if "drift" in logs]


def _same(a: Any, b: Any) -> None:
    if isinstance(b, Tensor):
        assert torch.equal(a, b)
    elif isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in b:
            _same(a[key], b[key])
    elif isinstance(b, list):
        for x, y in zip(a, b, strict=True):
            _same(x, y)
    else:
        assert a == b or (a != a and b != b)


def test_killed_while_saving_the_last_checkpoint_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    whole = trained(tmp_path / "whole", CASES["ewc"](), **saving)
    write = checkpoints.save

    def killed_at_the_second(folder: Path, *rest: Any) -> None:
        if folder.name == "checkpoint-4":
            raise KeyboardInterrupt
        write(folder, *rest)

    monkeypatch.setattr(checkpoints, "save", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", CASES["ewc"](), **saving)
    monkeypatch.undo()
    again = trained(tmp_path / "cut", CASES["ewc"](), resume=str(tmp_path / "cut" / "checkpoint-2"), **saving)
    ours, theirs = weights(again), weights(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("left", ["", '{"epoch": 1.0, "glo'])
def test_a_half_written_checkpoint_is_passed_over(left: str, tmp_path: Path) -> None:
    """Killed while the newest one was being written: without the Trainer's own state, or with a part of it."""
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole = trained(tmp_path, CASES["ewc"](), **saving)
    newest = tmp_path / f"checkpoint-{whole.state.global_step}"
    state = newest / "trainer_state.json"
    state.unlink() if not left else state.write_text(left)
    with pytest.warns(UserWarning, match=rf"in .*, {newest.name}: only half written, so that the run goes on from"):
        again = trained(tmp_path, CASES["ewc"](), resume=True, **saving)
    ours, theirs = weights(again), weights(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_no_checkpoint_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(ForgetlabError, match="holds no checkpoint to resume from: train without"):
        trained(tmp_path, [], resume=True)
    (tmp_path / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(ForgetlabError, match=r"no checkpoint to resume from \(checkpoint-2: only half written\)"):
        trained(tmp_path, [], resume=True)


def test_a_resume_that_cannot_be_right_is_refused(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, CASES["ewc"](), **saving)
    with pytest.raises(ForgetlabError, match=r"made with the methods ewc, this run has l2sp, layerwise-rates, warmup"):
        trained(tmp_path, CASES["l2sp and rates"](), resume=True, **saving)
    plain = tmp_path / "checkpoint-3"
    (plain / "forgetlab.json").unlink()
    with pytest.raises(ForgetlabError, match="forgetlab.json is missing; resume from another checkpoint"):
        trained(tmp_path, CASES["ewc"](), resume=str(plain), **saving)
    (plain / "forgetlab-files.json").unlink()
    with pytest.raises(ForgetlabError, match="holds no state of forgetlab: was it saved by a ForgettingTrainer"):
        trained(tmp_path, CASES["ewc"](), resume=str(plain), **saving)


class Inert(Method):
    """Any settings, and no effect."""

    name = "inert"

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


def settled(methods: Sequence[Method]) -> Any:
    return json.loads(json.dumps(checkpoints.settings(methods)))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (lambda: EWC(fisher(), 1e4), lambda: EWC(fisher(), 10.0), "ewc: lam=10000.0, this run has ewc: lam=10.0"),
        (lambda: L2SP(0.5), lambda: L2SP(0.5, proximal=True), "l2sp: proximal=False, this run has l2sp: proximal=True"),
        (
            lambda: ExperienceReplay([task(OLD)], ratio=0.5),
            lambda: ExperienceReplay([task(OLD, size=100)], ratio=0.5),
            "replay: old=.*, this run has replay: old=.*100 examples",
        ),
        (lambda: EWC(fisher(), 1.0), lambda: EWC({n: 2 * f for n, f in fisher().items()}, 1.0), "ewc: given=tensors "),
        (lambda: Inert(rates=[1, 2]), lambda: Inert(rates=[1, 3]), r"inert: rates=\[1, 2\], this run has inert"),
        (lambda: Inert(), lambda: Inert(x=None, y=1), "inert: y=None, this run has inert: y=1"),
    ],
)
def test_other_settings_of_a_method_are_told(one: Any, other: Any, told: str) -> None:
    assert checkpoints.differing(settled([one()]), settled([one()])) == ""
    found = checkpoints.differing(settled([one()]), settled([other()]))
    assert re.search(told, found), found


def test_a_resume_with_other_settings_is_refused_in_words_that_name_both(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, [L2SP(0.5)], **saving)
    with pytest.raises(ForgetlabError, match=r"made with l2sp: lam=0.5, this run has l2sp: lam=0.25: resume with"):
        trained(tmp_path, [L2SP(0.25)], resume=True, **saving)
    model = small_model(causal=True)
    for changed, message in (
        ({"limit": 8}, "made with limit=16, this run has limit=8"),
        ({"watch": [task(OLD), task("causal-lm")]}, "watched causal-lm:news, this one watches causal-lm too"),
    ):
        usual = {"methods": [L2SP(0.5)], "watch": [task(OLD)], "limit": 16}
        trainer = InOrder(
            model,
            arguments(tmp_path, **saving),
            train_dataset=rows_of(model, NEW, BATCH * STEPS),
            data_collator=collate,
            **{**usual, **changed},
        )
        with pytest.raises(ForgetlabError, match=message):
            trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_at_its_end_does_nothing_more(stopped: bool, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1}
    methods: Any = (lambda: [SafetyBrake(0.0)]) if stopped else CASES["ewc"]
    model = lambda: load("tiny-gpt", device="cpu") if stopped else small_model(causal=True)  # noqa: E731
    whole = trained(tmp_path, methods(), model(), **saving)
    assert (whole.state.global_step < STEPS) == stopped == bool(whole.stopped)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = trained(tmp_path, methods(), model(), resume=True, **saving)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert again.state.global_step == whole.state.global_step
    theirs, ours = weights(whole), weights(again)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (again.records[-1].status, again.records[-1].step) == (whole.records[-1].status, whole.records[-1].step)
    assert again.records[-1].scores[OLD] == whole.records[-1].scores[OLD]
    assert again.records[-1].drift == whole.records[-1].drift
    assert again.records[-1].loss == whole.records[-1].loss
    assert again.stopped == whole.stopped


def test_a_run_at_its_end_goes_on_where_more_steps_are_asked_for(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, CASES["ewc"](), **saving)
    assert trained(tmp_path, CASES["ewc"](), resume=True, max_steps=STEPS + 2, **saving).state.global_step == STEPS + 2


@pytest.mark.slow
def test_no_damage_to_a_checkpoint_gives_other_weights(tmp_path: Path) -> None:
    """Any file cut short, with a bit turned, gone, or a folder in its place: the checkpoint before it is taken.

    Without the digests, as where a run was killed just before they were written, what is cut short is said in words.
    """
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = weights(trained(tmp_path / "whole", CASES["si"](), **saving))
    unread = ("config.json", "generation_config.json", "training_args.bin")
    chance, files = random.Random(0), [path.name for path in (tmp_path / "whole" / "checkpoint-4").iterdir()]
    assert {"forgetlab.json", "forgetlab.safetensors", "model.safetensors", "optimizer.pt"} <= {*files}
    for name in sorted(files):
        for damage in ("short", "bit", "words", "folder", "gone"):
            out = tmp_path / "cut"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(tmp_path / "whole", out)
            file = out / "checkpoint-4" / name
            content = file.read_bytes()
            file.unlink()
            place = chance.randrange(len(content))
            if damage == "short":
                file.write_bytes(content[:place])
            elif damage == "bit":
                file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            elif damage == "words":
                file.write_text('{"global_step": "many"}')
            elif damage == "folder":
                file.mkdir()
            wrong = checkpoints.fault(out / "checkpoint-4")
            if (name, damage) == ("forgetlab-files.json", "gone"):  # never written
                assert wrong == ""
                continue
            assert wrong
            with pytest.warns(UserWarning, match="checkpoint-4: .* goes on from checkpoint-2"):
                assert checkpoints.newest(out) == str(out / "checkpoint-2")
            if damage == "short" and name not in (checkpoints.FILES, *unread):
                (out / "checkpoint-4" / checkpoints.FILES).unlink()
                with pytest.raises(ForgetlabError, match="checkpoint-4"):
                    trained(out, CASES["si"](), resume=str(out / "checkpoint-4"), **{**saving, "max_steps": 6})
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (tmp_path / "again" / "checkpoint-4" / "optimizer.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint-4: optimizer.pt is damaged"):
        again = weights(trained(tmp_path / "again", CASES["si"](), resume=True, **saving))
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_a_state_of_other_shapes_is_said(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, CASES["si"](), **saving)
    folder = tmp_path / "checkpoint-3"
    tensors = load_file(folder / "forgetlab.safetensors")
    for name in [name for name in tensors if name == "generator"]:
        tensors[name] = tensors[name][:10]
    save_file(tensors, folder / "forgetlab.safetensors")
    checkpoints.seal(folder)
    with pytest.raises(ForgetlabError, match="checkpoint-3 is damaged, or of another model or version"):
        trained(tmp_path, CASES["si"](), resume=str(folder), **saving)


def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path, [], **saving)
    with pytest.raises(ForgetlabError, match="of another model: 'body.transformer.* does not fit"):
        trained(tmp_path, [], model=load("tiny-gpt", device="cpu"), resume=True, **saving)


# -- what is watched --------------------------------------------------------------------------------


def test_what_is_kept_is_logged_above_a_guesser(tmp_path: Path) -> None:
    model = load("tiny-gpt", device="cpu")
    trainer = trained(tmp_path, [], model=model)
    first, *_, last = [logs for logs in trainer.state.log_history if f"kept/{OLD}" in logs]
    guess = trainer.watch[0].guesser(model, trainer.limit)
    assert guess is not None
    nats = [math.log(guess / logs[f"watch/{OLD}/perplexity"]) for logs in (first, last)]
    assert first[f"kept/{OLD}"] == 1.0
    assert last[f"kept/{OLD}"] == pytest.approx(min(1.0, nats[1] / nats[0]))
    assert nats[1] < nats[0]


def test_scores_are_logged_where_the_trainer_logs(tmp_path: Path) -> None:
    trainer = trained(tmp_path, CASES["ewc"]())
    logged = [logs for logs in trainer.state.log_history if f"watch/{OLD}/perplexity" in logs]
    assert [logs["step"] for logs in logged] == [0, 2, 4, 6]
    first, last = logged[0], logged[-1]
    assert f"kept/{OLD}" not in first.keys() | last.keys()  # a random model has nothing to lose
    assert first["drift"] == 0.0 < last["drift"]
    assert last["penalty/ewc"] > 0.0
    assert trainer.records[-1].status == "done"
    assert [len(r.tallies.get(OLD, ())) for r in trainer.records] == [16, *[0] * (len(trainer.records) - 2), 16]


def test_the_trainer_logs_what_it_logs_without_us(tmp_path: Path) -> None:
    model = small_model(causal=True)
    plain = PlainInOrder(
        model.body, arguments(tmp_path), train_dataset=rows_of(model, NEW, BATCH * STEPS), data_collator=collate
    )
    plain.train()
    theirs = [logs for logs in plain.state.log_history if "loss" in logs]
    assert [logs["step"] for logs in theirs] == [2, 4, 6]
    assert [logs for logs in trained(tmp_path, []).state.log_history if "loss" in logs] == theirs


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_of_a_record_is_that_of_the_steps_before_it(accumulation: int, tmp_path: Path) -> None:
    """What the Trainer itself logs at the same step."""
    trainer = trained(tmp_path, [], gradient_accumulation_steps=accumulation, max_steps=6 // accumulation)
    logged = {logs["step"]: logs["loss"] for logs in trainer.state.log_history if "loss" in logs}
    found = {record.step: record.loss for record in trainer.records[1:]}
    assert found.pop(3, None) is None or accumulation == 2  # the last step is looked at, and not logged
    assert trainer.records[0].loss is None
    assert found == pytest.approx(logged, rel=1e-6)
    assert len(found) == 3 // accumulation
    assert trainer.records[-1].scores["train"]["loss"] == trainer.records[-1].loss


def test_the_score_of_the_new_task_is_the_evaluation_at_the_same_step(tmp_path: Path) -> None:
    """Evaluated every second step and looked at at every one: what was not evaluated then is not known."""
    seen: list[tuple[int, float]] = []

    class Reads(Method):
        def should_stop(self, record: Record, run: Run) -> None:
            seen.append((record.step, record.scores["train"]["loss"]))

    model = small_model(causal=True)
    trainer = InOrder(
        model,
        arguments(tmp_path, eval_strategy="steps", eval_steps=2, logging_steps=1),
        train_dataset=rows_of(model, NEW, BATCH * STEPS),
        eval_dataset=rows_of(model, OLD, BATCH),
        data_collator=collate,
        methods=[Reads()],
    )
    trainer.train()
    logged = {logs["step"]: logs["eval_loss"] for logs in trainer.state.log_history if "eval_loss" in logs}
    assert sorted(logged) == [2, 4, 6]
    assert {step: score for step, score in seen if score == score} == logged
    assert [step for step, score in seen if score != score] == [0, 1, 3, 5]


def test_a_look_leaves_every_part_in_the_mode_it_was_in(tmp_path: Path) -> None:
    trainer = trained(tmp_path, [])
    trainer.model.train()
    kept_still = next(module for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout))
    kept_still.eval()
    modes = [module.training for module in trainer.model.modules()]
    trainer.look()
    assert [module.training for module in trainer.model.modules()] == modes


def test_the_brake_stops_the_trainer_and_puts_weights_back(tmp_path: Path) -> None:
    trainer = trained(tmp_path, [SafetyBrake(0.01)], model=load("tiny-gpt", device="cpu"), logging_steps=1)
    assert trainer.state.global_step < STEPS
    assert f"the perplexity of {OLD} rose" in trainer.stopped
    assert trainer.records[-1].status == "stopped"
    start, end = (trainer.records[i].scores[OLD]["perplexity"] for i in (0, -1))
    assert end <= start / 0.99 < trainer.records[-2].scores[OLD]["perplexity"]


def classifier(model: Model) -> BertForSequenceClassification:
    """A user's classifier of the same checkpoint, its head new."""
    config = copy.deepcopy(model.config)
    config.num_labels = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = BertForSequenceClassification(config)
    made.bert.load_state_dict(cast_body(model).bert.state_dict(), strict=False)  # it has a pooler of its own
    return made


def cast_body(model: Model) -> Any:
    return model.body


def sentences(model: Model) -> list[dict[str, Any]]:
    new = task("sentiment")
    encoded = new.encoded(model, "train")
    assert new.train is not None
    assert new.train.labels is not None
    return [
        {"input_ids": encoded.columns["input_ids"][i, : encoded.lengths[i]].tolist(), "label": int(label == "positive")}
        for i, label in enumerate(new.train.labels[: BATCH * STEPS])
    ]


def collate_labels(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {**collate(rows), "labels": torch.tensor([row["label"] for row in rows])}


def test_a_classifier_is_watched_through_the_heads_of_before(tmp_path: Path) -> None:
    before = small_model()
    before.add_head("entities", task("entities").labels, "token")  # type: ignore[attr-defined]
    own = classifier(before)
    untouched = task("masked-lm").score(before, 16)
    trainer = InOrder(
        own,
        arguments(tmp_path),
        train_dataset=sentences(before),
        data_collator=collate_labels,
        processing_class=before.tokenizer,
        methods=[L2SP(0.1), ExperienceReplay([task("masked-lm")], 0.25, 32)],
        watch=[task("masked-lm"), task("entities")],
        before=before,
        limit=16,
    )
    trainer.train()
    first, last = trainer.records[0], trainer.records[-1]
    assert first.scores["masked-lm"] == untouched
    assert last.scores["masked-lm"] != untouched
    run = trainer._run
    assert run is not None
    assert not any("classifier" in name for name in run.anchor)  # a new head is not pulled back
    assert any("cls.predictions" in name for name in run.anchor)
    assert before.backbone is own.bert  # what is watched is what is trained
    start = classifier(small_model())
    assert not torch.equal(own.classifier.weight, start.classifier.weight)
    moved = {n for n, p in trainer.together.named_parameters() if n in run.anchor and not torch.equal(p, run.anchor[n])}
    assert any("cls.predictions" in name for name in moved)  # replay trains the lent head too


def test_a_peft_model(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    before = small_model()
    base = classifier(before)
    lora = get_peft_model(base, LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"]))
    trainer = InOrder(
        lora,
        arguments(tmp_path),
        train_dataset=sentences(before),
        data_collator=collate_labels,
        processing_class=before.tokenizer,
        methods=[L2SP(0.1)],
        watch=[task("masked-lm")],
        before=before,
        limit=16,
    )
    frozen = {n: p.detach().clone() for n, p in lora.named_parameters() if not p.requires_grad}
    trainer.train()
    assert all(torch.equal(p, frozen[n]) for n, p in lora.named_parameters() if n in frozen)
    moved = [n for n, p in lora.named_parameters() if "lora_B" in n and p.detach().abs().max() > 0]
    assert moved
    assert trainer.records[-1].scores != trainer.records[0].scores
    assert 0 < trainer.records[-1].penalty["l2sp"] < 1


def test_bfloat16(tmp_path: Path) -> None:
    half, single = trained(tmp_path, CASES["ewc"](), bf16=True), trained(tmp_path, CASES["ewc"]())
    assert half.records[-1].drift == pytest.approx(single.records[-1].drift, rel=0.05)
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


POOLER = {f"body.bert.pooler.dense.{kind}" for kind in ("weight", "bias")}  # which only the classifier has


def test_the_start_that_before_remembers_is_the_only_copy(tmp_path: Path) -> None:
    before = small_model()
    before.add_head("entities", task("entities").labels, "token")  # type: ignore[attr-defined]
    before.remember()
    kept = before._pretrained
    for own in (before, classifier(before)):
        trainer = ForgettingTrainer(
            own,
            arguments(tmp_path, max_steps=1),
            train_dataset=sentences(before),
            data_collator=collate_labels,
            before=before,
        )
        anchor = {name.replace("other.", "body.", 1): value for name, value in trainer._begin().anchor.items()}
        assert {name for name in kept if "position_ids" not in name} >= anchor.keys() - POOLER
        assert len(anchor.keys() - POOLER) > 30
        assert all(anchor[name].data_ptr() == kept[name].data_ptr() for name in anchor.keys() - POOLER)


def test_nothing_but_a_new_head_is_trained(tmp_path: Path) -> None:
    """Then there is no anchor, and nothing drifts."""
    model = small_model()
    own = classifier(model)
    own.bert.requires_grad_(False)
    trainer = InOrder(
        own, arguments(tmp_path, max_steps=2), train_dataset=sentences(model), data_collator=collate_labels
    )
    trainer.train()
    assert trainer._run is not None
    assert trainer._run.anchor == {}
    assert [record.drift for record in trainer.records] == [0.0, 0.0]


def test_what_si_adds_up_in_half_precision_is_not_swallowed() -> None:
    """Steps of a thousandth of the sum, each with g Δθ = 2⁻⁸: bfloat16 would stop at 1."""
    model = small_model(causal=True)
    model.to(torch.bfloat16)
    p = model.get_parameter("body.transformer.h.0.mlp.c_fc.weight")
    run = Run.begin(model, task(NEW), 600, 8, 1e-3, 0)
    si = SI(lam=1.0)
    si.setup(run)
    with torch.no_grad():
        p.zero_()
        for _ in range(600):
            p.grad = torch.full_like(p, 1.0)
            si.observe_gradients(run)
            p.sub_(2**-8)
            si.after_step(run)
            p.zero_()
    path = si._path["body.transformer.h.0.mlp.c_fc.weight"]
    assert path.dtype == torch.float32
    assert torch.equal(path, torch.full_like(path, 600 / 256))


# -- several processes ------------------------------------------------------------------------------

WORKER = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tests.training.huggingface.test_trainer import CASES, trained, weights
import torch.distributed as dist

folder, *names = sys.argv[1:]
for name in names:
    trainer = trained(Path(folder, name), CASES[name](), per_device_train_batch_size=4)
    assert dist.is_initialized() and dist.get_world_size() == 2
    found = {n: p.contiguous() for n, p in weights(trainer).items()}
    save_file(found, Path(folder, f"{name}-{dist.get_rank()}.safetensors"))
dist.barrier()
dist.destroy_process_group()  # or the process that ends first takes the other one's store away
"""


def in_two_processes(*program: str) -> None:
    """Run a program (a file or "-m", module, and its arguments) twice, side by side, with gloo between the two."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    done = subprocess.run(
        [*command, *program],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    in_two_processes(str(tmp_path / "worker.py"), str(tmp_path), "ewc", "pcgrad")
    for name in ("ewc", "pcgrad"):
        first, second = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(first[n], second[n]) for n in first)
        if name == "ewc":  # with PCGrad each process draws old examples of its own
            close(first, weights(trained(tmp_path, CASES[name]())), gpt_start())


# -- bad input --------------------------------------------------------------------------------------


def test_what_cannot_work_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    model = small_model()
    rows = sentences(model)
    with pytest.raises(ForgetlabError, match="needs a masked language model"):
        InOrder(classifier(model), arguments(tmp_path), processing_class=model.tokenizer, watch=[task("masked-lm")])
    with pytest.raises(ForgetlabError, match="give processing_class=tokenizer"):
        InOrder(classifier(model), arguments(tmp_path), watch=[task("entities")])
    with pytest.raises(ForgetlabError, match="two watched tasks have the same name"):
        InOrder(model, arguments(tmp_path), watch=[task("masked-lm"), task("masked-lm")])
    with pytest.raises(ForgetlabError, match="backbones of other shapes"):
        InOrder(classifier(model), arguments(tmp_path), before=small_model(causal=True))
    trainer = InOrder(
        classifier(model),
        arguments(tmp_path),
        train_dataset=rows,
        data_collator=collate_labels,
        before=model,
        methods=[Frozen(), L2SP(1.0)],
    )
    with pytest.raises(ForgetlabError, match="l2sp has nothing to protect"):
        trainer.train()
    with pytest.raises(ForgetlabError, match="give the Trainer a peft model instead"):
        trained(tmp_path, [LoRA(2)])
    spread = InOrder(classifier(model), arguments(tmp_path), train_dataset=rows, before=model, methods=[KLAnchor()])
    spread.is_fsdp_enabled = True
    with pytest.raises(ForgetlabError, match="kl-anchor does not work where FSDP .* take L2SP, EWC or"):
        spread._begin()


@pytest.mark.parametrize("given", [3, 4])
def test_data_that_give_out_are_said_and_nothing_is_lost(given: int, tmp_path: Path) -> None:
    """A stream that is exhausted in the middle: what was learned until then is scored, and stays."""
    model = small_model(causal=True)
    rows = iter(rows_of(model, NEW, BATCH * given))

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return rows  # the same iterator for every epoch: it never starts anew

    trainer = ForgettingTrainer(
        model,
        arguments(tmp_path),
        train_dataset=Stream(),
        data_collator=collate,
        methods=[L2SP(0.1)],
        watch=[task(OLD)],
        limit=16,
    )
    with pytest.raises(ForgetlabError, match=f"gave out after step {given} of 6: .* or max_steps={given}"):
        trainer.train()
    assert [record.step for record in trainer.records] == sorted({0, 2, given})
    assert [record.status for record in trainer.records][-1] == "done"
    assert trainer.records[-1].drift > trainer.records[0].drift


def test_frozen_trains_the_new_head_only(tmp_path: Path) -> None:
    model = small_model()
    own = classifier(model)
    start = {name: p.detach().clone() for name, p in own.named_parameters()}
    trainer = InOrder(
        own,
        arguments(tmp_path),
        train_dataset=sentences(model),
        data_collator=collate_labels,
        before=model,
        methods=[Frozen()],
        watch=[task("masked-lm")],
    )
    trainer.train()
    assert {n for n, p in own.named_parameters() if not torch.equal(p, start[n])} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert trainer.records[-1].scores["masked-lm"] == trainer.records[0].scores["masked-lm"]


def test_the_script_of_the_readme_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (script,) = [
        block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "ForgettingTrainer" in block
    ]
    assert len(script.strip().splitlines()) <= 40
    short = script.replace('"out", max_steps=300', f'"{tmp_path}", use_cpu=True, max_steps=2')
    assert short != script
    exec(short, {})
    assert re.search(r"^0 \{'masked-lm': 2\.\d+, 'entities': 1\.0\}$", capsys.readouterr().out, re.MULTILINE)
