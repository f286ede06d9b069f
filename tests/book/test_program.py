"""The program of the page that trains, built for this machine, against torch and forgetlab's own scores."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence

from book import program, texts
from book.program import Program
from book.texts import NEW, TAGS, TEXT
from forgetlab import finetune, load
from forgetlab.errors import ForgetlabError
from forgetlab.labs.kit.remedy import USUAL
from forgetlab.metrics import parameter_drift
from forgetlab.models import Model
from forgetlab.remedies import EWC, L2SP
from forgetlab.tasks import Task
from forgetlab.training import Method
from forgetlab.training.options import Options

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not program.has_compiler(), reason="no ziglang, the compiler from PyPI: see requirements.txt"),
]
BATCH = 32


class Opened(SimpleNamespace):
    c: Program
    model: Model
    tasks: list[Task]
    own: list[Tensor]  # the model's weights in the order of the program's


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return program.made(tmp_path_factory.mktemp("program"))


@pytest.fixture
def opened(built: Program) -> Opened:
    """The program at the start of a run of seed 3, and the same weights in torch in double precision."""
    model, tasks = texts.opened()
    names = [name for name in texts.parameters(model, tasks) if not name.startswith("new.")]
    tasks[NEW].prepare(model)
    named = dict(model.double().named_parameters())
    own = [*(named[name] for name in names), *model.heads[tasks[NEW].head].parameters()]  # type: ignore[attr-defined]
    built.c.begin(3, 1e-3, 0.0)
    found = Opened(c=built, model=model, tasks=tasks, own=own)
    follow(found)
    return found


@torch.no_grad()
def follow(opened: Opened) -> None:
    """Give the model in torch the program's weights."""
    for p, value in zip(opened.own, split(opened.c.part("theta"), opened.own), strict=True):
        p.copy_(value)


def split(flat: np.ndarray, like: list[Tensor]) -> list[Tensor]:
    pieces = torch.from_numpy(flat.copy()).double().split([p.numel() for p in like])
    return [piece.view_as(p) for piece, p in zip(pieces, like, strict=True)]


def batch(built: Program) -> dict[str, Tensor]:
    """The program's batch as torch has it, with padding."""
    found = built.part("batch", np.int32)
    rows = (len(found) - BATCH - 3) // 3
    (count,), start, ids, (places,), at, to = np.split(found, np.cumsum([1, BATCH + 1, rows, 1, rows]))
    columns = [torch.tensor(ids[start[i] : start[i + 1]]).long() for i in range(count)]
    padded = pad_sequence(columns, True, 0)
    at, to = at[:places], to[:places]
    owner = np.searchsorted(start[1 : count + 1], at, side="right")
    return {
        "input_ids": padded,
        "attention_mask": pad_sequence([torch.ones_like(one) for one in columns], True, 0),
        "places": torch.tensor(owner * padded.shape[1] + at - start[owner]).long(),
        "targets": torch.tensor(to).long(),
    }


def filled(built: Program, kind: int, first: int = 0, count: int = BATCH) -> dict[str, Tensor]:
    built.c.empty()
    for text in range(first, first + count):
        assert built.c.take(kind, text)
    return batch(built)


def worst(found: Sequence[Tensor], true: Sequence[Tensor | None]) -> float:
    """The largest relative error of a tensor; where the true one is 0, so must be the found one."""
    errors = []
    for mine, theirs in zip(found, true, strict=True):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        if theirs.norm() > 1e-12:  # a key's bias shifts all scores of a row alike: no gradient but rounding
            errors.append(float((mine - theirs).norm() / theirs.norm()))
        else:
            assert float(mine.norm()) < 1e-6
    return max(errors)


@pytest.mark.parametrize("kind", [NEW, TEXT, TAGS])
def test_the_gradient_of_each_loss_is_torch_s(opened: Opened, kind: int) -> None:
    for _ in range(20):  # as it is, it makes no error with names: a loss of 4e-4 and its gradient are mostly rounding
        opened.c.c.step()
    follow(opened)
    asked = filled(opened.c, kind)
    loss = opened.tasks[kind].loss(opened.model, asked)
    loss.backward()
    assert opened.c.c.gradient(kind) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert len(asked["targets"]) >= BATCH
    assert worst(split(opened.c.part("grad"), opened.own), [p.grad for p in opened.own]) <= 1e-5


@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_steps_are_adamw_s_with_the_pull_and_the_clipping(opened: Opened, lam: float) -> None:
    """Five steps with one gradient each given to both: the program's own, of the batches that it draws."""
    anchor = [p.detach().clone() for p in opened.own]
    opened.c.c.begin(3, 1e-2, lam)
    omega = split(opened.c.part("omega"), opened.own)
    omega = [torch.rand(o.shape, generator=torch.Generator().manual_seed(0)).double() * o for o in omega]
    opened.c.part("omega")[:] = torch.cat([o.flatten() for o in omega]).numpy()
    assert not any(o.any() for o in omega[-2:])  # the new head is not pulled
    options = Options()
    optimizer = torch.optim.AdamW(opened.own, lr=1e-2, weight_decay=options.weight_decay)
    clipped = 0
    for step in range(5):
        filled(opened.c, NEW, BATCH * step)
        opened.c.c.gradient(NEW)
        for p, g, o, a in zip(opened.own, split(opened.c.part("grad"), opened.own), omega, anchor, strict=True):
            p.grad = g + lam * o * (p.detach() - a)
        clipped += float(clip_grad_norm_(opened.own, options.clip)) > options.clip
        optimizer.step()
        opened.c.c.update()
        with torch.no_grad():
            moved = [p - a for p, a in zip(opened.own, anchor, strict=True)]
            mine = [p - a for p, a in zip(split(opened.c.part("theta"), opened.own), anchor, strict=True)]
        total = math.sqrt(sum(float(m.square().sum()) for m in moved))
        apart = math.sqrt(sum(float((m - t).square().sum()) for m, t in zip(mine, moved, strict=True)))
        assert apart / total < 1e-4
        follow(opened)  # both go on from the same weights
    assert clipped
    before = {str(i): a for i, a in enumerate(anchor[:-2])}
    after = {str(i): p.detach() for i, p in enumerate(opened.own[:-2])}
    assert opened.c.c.drift() == pytest.approx(parameter_drift(before, after).total, rel=1e-6)


@pytest.mark.parametrize("method", ["none", "L2-SP", "EWC"])
def test_ten_steps_are_those_of_finetune(built: Program, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe as a whole: `finetune` with the program's batches, first head and Fisher information."""
    model, (new, *watch) = texts.opened()
    names = [name for name in texts.parameters(model, [new, *watch]) if not name.startswith("new.")]
    new.prepare(model)
    named = dict(model.named_parameters())
    own = [*(named[name] for name in names), *model.heads[new.head].parameters()]  # type: ignore[attr-defined]
    lam = {"none": 0.0, "L2-SP": 0.1, "EWC": 1000.0}[method]
    built.c.begin(4, 3e-3, lam)
    given = list[dict[str, Tensor]]()
    for _ in range(10):
        built.c.next()
        given.append(batch(built))
    built.c.begin(4, 3e-3, lam)
    follow(Opened(c=built, own=own))
    methods: list[Method] = [L2SP(lam)] if method == "L2-SP" else []
    if method == "EWC":
        assert built.c.fisher(TEXT, 20)
        assert built.c.fisher(TAGS, 20)
        omega = [one.float() for one in split(built.part("omega"), own)]
        fisher = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        methods = [EWC({**fisher, **dict(zip(names, omega[:-2], strict=True))}, lam)]
    for _ in range(10):
        built.c.step()
    monkeypatch.setattr(new, "batch", lambda *_: given.pop(0))
    *_, last = finetune(model, new, methods=methods, watch=watch, steps=10, lr=3e-3, every=10, limit=USUAL["limit"])
    scores = built.scores()
    assert last.drift > 0.3
    assert built.c.drift() == pytest.approx(last.drift, rel=1e-3)
    assert scores["nll"] == pytest.approx(last.scores["masked-lm"]["loss"], rel=1e-3)
    assert scores["f1"] == pytest.approx(last.scores["entities"]["f1"], abs=0.01)
    assert scores["accuracy"] == pytest.approx(last.scores["sentiment"]["accuracy"], abs=0.02)


def test_the_scores_of_the_untouched_model_are_forgetlab_s(opened: Opened) -> None:
    scores, limit = opened.c.scores(), USUAL["limit"]
    new, text, tags = (task.score(opened.model, limit) for task in opened.tasks)
    assert scores["accuracy"] == new["accuracy"]
    assert math.exp(scores["nll"]) == pytest.approx(text["perplexity"], abs=1e-3)
    assert scores["f1"] == tags["f1"]


def test_the_scores_of_a_model_that_forgot_are_forgetlab_s(opened: Opened) -> None:
    for _ in range(25):
        opened.c.c.step()
    follow(opened)
    scores, limit = opened.c.scores(), USUAL["limit"]
    new, text, tags = (task.score(opened.model, limit) for task in opened.tasks)
    assert scores["accuracy"] == new["accuracy"]
    assert scores["nll"] == pytest.approx(text["loss"], rel=1e-5)
    assert scores["f1"] == tags["f1"] < 1


def test_the_fisher_information_is_that_of_drawn_tags(opened: Opened) -> None:
    """Of the tag head's bias it is known: mean over texts of Σ p (1 − p), as the tags of a text are independent."""
    opened.c.part("theta")[-520:-130] *= 0.1  # the head's 6 × 64 weights and its bias: less sure, so no draw is rare
    follow(opened)
    data = opened.c.part("data", np.int32)
    kept, data[3] = data[3], data[2] + 60  # the first sixty sentences are all that there are
    opened.c.part("omega")[:] = 0
    assert opened.c.c.fisher(TAGS, 60)
    assert not opened.c.c.fisher(TAGS, 61)
    assert not opened.c.c.fisher(NEW, 1)
    true = torch.zeros(6, dtype=torch.float64)
    for first in (0, 30):
        p = opened.tasks[TAGS].logits(opened.model, filled(opened.c, TAGS, first, 30)).softmax(-1).detach()
        true += (p * (1 - p)).sum(0) / 60
    data[3] = kept
    omega = split(opened.c.part("omega"), opened.own)
    assert float((omega[-3] - true).norm() / true.norm()) < 0.15  # 240 draws
    assert all((one >= 0).all() for one in omega)
    assert not any(one.any() for one in (*omega[-2:], *omega[-9:-4]))  # the new head, the head for hidden words
    assert omega[0].any()


def test_every_text_has_the_ids_of_the_real_tokenizer(built: Program) -> None:
    """There is no tokenizer in the page: what it holds is what the tokenizer makes of the shipped texts."""
    model, tasks = texts.opened()
    data = built.part("data", np.uint8).tobytes()
    found = texts.sets(model, tasks)
    assert texts.packed(found) == data
    for one, (split_, task) in zip(found, ((s, t) for s in texts.SPLITS for t in tasks), strict=True):
        side = task.train if split_ == "train" else task.test
        assert side is not None
        given = [" ".join(words) for words in side.words] if side.words else list(side.texts)
        real = model.tokenizer(given)["input_ids"]
        if split_ == "train":
            assert [ids for ids, _ in one] == real
        else:
            mask = model.tokenizer.mask_token_id
            shown = [
                [was if token == mask else token for token, was in zip(ids, asked, strict=True)] for ids, asked in one
            ]
            assert len(shown) == USUAL["limit"]
            assert all(ids in real for ids in shown)


def test_each_review_comes_once_before_any_comes_again(built: Program) -> None:
    built.c.begin(0, 0.0, 0.0)
    seen: list[tuple[int, ...]] = []
    for _ in range(125):  # 4000 texts: all of them twice
        built.c.next()
        asked = batch(built)
        rows = [tuple(r[m.bool()].tolist()) for r, m in zip(asked["input_ids"], asked["attention_mask"], strict=True)]
        seen += [(*row, label) for row, label in zip(rows, asked["targets"].tolist(), strict=True)]
    model, tasks = texts.opened()
    every = sorted((*ids, asked[0]) for ids, asked in texts.texts(model, tasks[NEW], "train"))
    assert sorted(seen[:2000]) == sorted(seen[2000:]) == every
    assert seen[:2000] != seen[2000:]


def test_masks_are_bert_s(built: Program) -> None:
    built.c.begin(0, 1e-3, 0.0)
    model, tasks = texts.opened()
    real = [ids for ids, _ in texts.texts(model, tasks[TEXT], "train")]
    hidden = masked = kept = inner = 0
    for first in range(0, 960, BATCH):
        asked = filled(built, TEXT, first)
        ids, places = asked["input_ids"].flatten(), asked["places"]
        width = asked["input_ids"].shape[1]
        for place, target in zip(places.tolist(), asked["targets"].tolist(), strict=True):
            row, at = divmod(place, width)
            assert real[first + row][at] == target >= len(model.tokenizer.all_special_ids)
            masked += int(ids[place]) == model.tokenizer.mask_token_id
            kept += int(ids[place]) == target
        assert set((places // width).tolist()) == set(range(BATCH))  # one in each text at least
        hidden += len(places)
        inner += sum(len(r) - 2 for r in real[first : first + BATCH])
    assert masked / hidden == pytest.approx(0.8, abs=0.03)
    assert kept / hidden == pytest.approx(0.1, abs=0.02)
    assert 0.15 < hidden / inner < 0.2  # 15 %, and one where chance hid none


def test_what_has_no_room_is_refused(built: Program) -> None:
    built.c.empty()
    took = [built.c.take(NEW, text) for text in range(BATCH + 1)]
    assert all(took[:BATCH])
    assert not took[BATCH]
    built.c.empty()
    assert not built.c.take(NEW, 2000)
    assert not built.c.take(6, 0)
    assert not built.c.take(NEW, -1)
    data = built.part("data", np.uint8)
    whole = data.copy()
    data[-4 * 100 :].view(np.int16)[:] = 30_000  # classes that no head has
    assert built.c.wrong()
    data[:] = whole
    assert not built.c.wrong()
    with pytest.raises(RuntimeError, match=r"data: 8 bytes, the program wants \d"):
        Program(Path(built.c._name), built.part("start", np.uint8).tobytes(), bytes(8))


def test_another_model_is_refused_in_words() -> None:
    gpt = load("tiny-gpt")
    with pytest.raises(ForgetlabError, match="tiny-gpt: the page's program knows a BERT with ReLU"):
        texts.sizes(gpt, [], [])


def test_a_rate_that_is_too_high_ends_the_run(built: Program) -> None:
    records = [*built.run({"lr": 1e30, "steps": 40})]
    assert records[-1]["step"] < 40
    assert not math.isfinite(records[-1]["loss"])
    again = [*built.run({"steps": 5})]  # and nothing of it stays
    assert again == [*built.run({"steps": 5})]
    assert math.isfinite(again[-1]["loss"])


@pytest.mark.long
@pytest.mark.skipif(not os.environ.get("FORGETLAB_LONG"), reason="half a minute: FORGETLAB_LONG=1 runs it")
def test_over_seeds_the_ends_are_those_of_finetune(built: Program) -> None:
    """Eight seeds without a pull; benchmarks/tab.py has EWC too."""
    from benchmarks import tab

    assert all(abs(one["difference"]) < 3 * one["error"] for one in tab.agreement(built, {}, range(8)).values())
