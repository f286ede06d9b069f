"""Inside the change: what a fine-tune does to the weights, to the features and to the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from forgetlab import metrics
from forgetlab.diff.inside.readout import states
from forgetlab.experiments.recipes import Bench, Recipe
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.kit.benches import Benches, head, told
from forgetlab.labs.kit.quests import Quest, achieved
from forgetlab.labs.kit.runner import Driver
from forgetlab.labs.views.inside import DEPTHS, LAYERS, Change, Inside, View
from forgetlab.metrics.arrays import rounded
from forgetlab.models.model import Model, evaluating
from forgetlab.plots.style import number
from forgetlab.tasks import Tagging, Task
from forgetlab.tasks.encoding import inner_tokens
from forgetlab.teaching import compat

TEXTS = 96
SHOTS = 20  # names of each kind that a probe is fitted on
RARE = 5  # a word that stands fewer times in the new training texts is rare there
NEW = {"to judge reviews": "sentiment", "to fill gaps in reviews": "masked-lm:reviews"}

Look = dict[str, Any]  # what `look` gives

QUESTS = (
    Quest(
        "Learn sentiment to 0.8 with every layer moved by less than 2.",
        "What does a slower rate move?",
        lambda runs: (
            runs[-1]["tasks"][0]["name"] == "sentiment"
            and achieved(runs[-1], 0.8)
            and max(runs[-1]["records"][-1]["drift_per_layer"][name] for name in LAYERS) < 2
        ),
        ({"lr": 10**-3.5},),
    ),
    Quest(
        "Ruin the features: even a probe fitted anew on layer 2 tells less than 0.8.",
        "Another lesson, ten times faster.",
        lambda runs: (runs[-1]["inside"][-1]["refit"][-1] or 1) < 0.8,
        ({"learns": "to fill gaps in reviews", "lr": 0.01},),
    ),
)


def show(driver: Driver | None = None) -> Lab[Inside]:
    """The lab as a widget: learning rate, steps, seed; the layer only changes the picture."""
    benches, view = Benches(), cache(View)

    def work(settings: Settings) -> Iterator[Inside]:
        made = recipe(settings)
        bench = benches.bench(made)
        bench.model.restore()
        before, rare, found = look(bench), rare_words(bench), list[Change]()
        for run in benches.run(made):
            found.append(change(before, look(bench), rare))
            state: Inside = {**run, "inside": list(found)}
            yield {**state, "message": sentence(state, DEPTHS[-1])}

    def draw(state: Inside, old: Sequence[Inside], settings: Settings, source: str) -> tuple[Figure, str]:
        return view().draw(state, old, settings["layer"], source), sentence(state, settings["layer"])

    return Lab(
        "inside",
        work,
        draw,
        training={
            "learns": compat.choice("learns", "to judge reviews", tuple(NEW)),
            "lr": compat.log_slider("learning rate", 1e-3, 1e-5, 1e-1),
            "steps": compat.slider("steps", 100, 20, 200, 20),
            "seed": compat.slider("seed", 0, 0, 9, 1),
        },
        view={"layer": compat.choice("layer", DEPTHS[-1], DEPTHS)},
        head=head,
        words=lambda state, settings: sentence(state, settings["layer"]),
        presets={"gentle": {"lr": 1e-4}, "usual": {"lr": 1e-3}, "violent": {"lr": 1e-2}},
        intro="A tiny BERT learns something from reviews. What changes inside, seen on general text?",
        driver=driver,
        quests=QUESTS,
    )


def recipe(settings: Settings) -> Recipe:
    """The run that the sliders describe."""
    return Recipe(
        new=NEW[settings["learns"]],
        watch=("masked-lm", "entities"),
        lr=settings["lr"],
        steps=settings["steps"],
        seed=settings["seed"],
        every=settings["steps"] // 10,
        limit=TEXTS,
    )


def look(bench: Bench) -> Look:
    """What the model makes of the same texts now: hidden states at every depth, features of names, LM logits."""
    model, (general, entities) = bench.model, bench.watch
    fitted = entities.batch(model, torch.arange(TEXTS), torch.Generator())
    with evaluating(model), torch.inference_mode():
        texts = general.test_batches(model, TEXTS)
        hidden = [[h[inner_tokens(b["input_ids"], model.tokenizer)] for h in states(model, b)] for b in texts]
        return {
            "hidden": [torch.cat(depth) for depth in zip(*hidden, strict=True)],
            "words": torch.cat([batch["targets"] for batch in texts]).cpu(),
            "logits": torch.cat([general.logits(model, batch) for batch in texts]),
            "fit": _names(model, entities, [fitted]),
            "test": _names(model, entities, entities.test_batches(model, TEXTS)),
        }


def rare_words(bench: Bench) -> Tensor:
    """Ids of the words that stand fewer than RARE times in the new task's training texts."""
    tokenizer = bench.model.tokenizer
    ids = bench.new.encoded(bench.model, "train").columns["input_ids"]
    words = inner_tokens(torch.arange(len(tokenizer)), tokenizer)
    return ((torch.bincount(ids.flatten(), minlength=len(words)) < RARE) & words).nonzero().squeeze(1)


def change(before: Look, now: Look, rare: Tensor) -> Change:
    """The numbers of the features and the outputs; lists go over the depths, None stands for nan."""
    shift = metrics.output_shift(before["logits"], now["logits"], rare=rare)
    own = metrics.output_shift(before["logits"], now["logits"], rare=rare, mask=torch.isin(now["words"], rare))
    test, truth = now["test"]

    def probe(fit: tuple[list[Tensor], Tensor]) -> list[float | None]:
        found = (metrics.kshot_probe(x, fit[1], y, truth, k=SHOTS, seed=0) for x, y in zip(fit[0], test, strict=True))
        return [rounded(one["mean"], 5) for one in found]

    return {
        "cka": [rounded(metrics.linear_cka(x, y), 5) for x, y in zip(before["hidden"], now["hidden"], strict=True)],
        "frozen": probe(before["fit"]),
        "refit": probe(now["fit"]),
        "kl": rounded(shift["kl"], 5),
        "entropy": rounded(shift["entropy_after"], 5),
        "rare": rounded(shift["rare_mass_after"], 5),
        "right": rounded(own["rare_mass_after"], 5),
    }


def sentence(state: Inside, layer: str) -> str:
    """The change in words, for the alt text and the message."""
    first, last, depth = state["inside"][0], state["inside"][-1], DEPTHS.index(layer)
    if state["records"][-1]["status"] == "diverged":
        return told(state)
    moved = {name: state["records"][-1]["drift_per_layer"][name] for name in LAYERS}
    most = max(moved, key=lambda name: moved[name])
    cka, frozen, refit = (number(last[key][depth], "share") for key in ("cka", "frozen", "refit"))
    rare, right = (" → ".join(number(one[key], "share") for one in (first, last)) for key in ("rare", "right"))
    return (
        f"After {state['records'][-1]['step']} steps: of the weights, {most} moved most ({number(moved[most])}). "
        f"Features of {layer}: CKA with before {cka}; a probe fitted before tells {frozen} of the names’ kinds, one "
        f"fitted anew {refit}. Outputs on general text: KL {number(last['kl'])} nats, entropy "
        f"{number(first['entropy'])} → {number(last['entropy'])} nats, mass on words rare in reviews {rare}, where "
        f"one is right {right}."
    )


def _names(model: Model, task: Task, batches: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], Tensor]:
    """(features at every depth, kind) of the first word of each name."""
    assert isinstance(task, Tagging)
    first = torch.tensor([tag.startswith("B-") for tag in task.labels], device=model.device)
    kept = [first[batch["targets"]] for batch in batches]
    found = [
        [h.flatten(0, 1)[batch["places"][keep]].cpu() for h in states(model, batch)]
        for batch, keep in zip(batches, kept, strict=True)
    ]
    kinds = torch.cat([batch["targets"][keep].cpu() for batch, keep in zip(batches, kept, strict=True)])
    return [torch.cat(depth) for depth in zip(*found, strict=True)], kinds
