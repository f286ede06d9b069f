"""How the cost of a step grows: with weights, length of the texts, watched tasks and runs; and what each remedy holds.

python benchmarks/scale.py [--repeats 7] [--device cpu]
Prints tables, writes benchmarks/results/scale-DEVICE.json and draws docs/images/scale.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from forgetlab import finetune, load, task
from forgetlab.experiments.recipes import Recipe, prepare, sweep
from forgetlab.importance import fisher_diagonal
from forgetlab.models.device import device_name
from forgetlab.models.model import Model
from forgetlab.plots.drawing import png
from forgetlab.plots.style import COLORS
from forgetlab.remedies.by_name import make_methods
from forgetlab.remedies.regularizers import EWC
from forgetlab.sources import Examples
from forgetlab.tasks import MaskedLM
from forgetlab.training.pretraining import world_tokenizer

SIZES = ((64, 2), (128, 4), (256, 6), (512, 8), (768, 12))  # width, layers
LENGTHS = (16, 32, 64, 128, 256, 512)
WATCHED = ("masked-lm", "entities", "acceptability", "register")
RUNS = (1, 2, 4, 8, 16)
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # seconds
REMEDIES = ("none", "l2sp", "ewc", "online-ewc", "si", "mas", "lwf", "kl-anchor", "replay", "pcgrad", "agem")
REMEDIES += ("frozen", "adapters", "lora", "columns", "safety-brake", "wise")


def bert(width: int, layers: int, device: str, positions: int = 64) -> Model:
    from transformers import BertConfig, BertForMaskedLM

    tokenizer = world_tokenizer(False)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 64),
        intermediate_size=4 * width,
        max_position_embeddings=positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return Model(BertForMaskedLM(config), tokenizer, f"{width}×{layers}").to(device).eval()


def long_texts(length: int, count: int = 64) -> MaskedLM:
    """Texts of the embedded language, joined to about `length` tokens and cut there."""
    words = " ".join(task("masked-lm").test.texts).split()
    texts = tuple(" ".join(words[i * (length - 2) : (i + 1) * (length - 2)]) for i in range(count))
    whole = [text for text in texts if len(text.split()) == length - 2] or [" ".join((words * 9)[: length - 2])]
    examples = Examples(kind="text", texts=tuple((whole * count)[:count]))
    return MaskedLM("long", examples, examples)


def step(model: Model, new: Any, batch_size: int, steps: int, methods: Any = ()) -> float:
    """Seconds of a step."""
    model.restore()
    run = finetune(model, new, methods=list(methods), steps=steps, every=steps, batch_size=batch_size, limit=1)
    return list(run)[-1].train_seconds / steps


def median(repeats: int, measure: Callable[[], float]) -> float:
    measure()
    return statistics.median(measure() for _ in range(repeats))


def by_size(repeats: int, device: str) -> list[dict[str, float]]:
    rows = []
    for width, layers in SIZES:
        model, new = bert(width, layers, device), task("sentiment")
        fisher = {name: torch.rand_like(p) for name, p in model.named_parameters()}
        steps = 10 if width < 256 else 2

        def look(model: Model = model) -> float:
            start = time.perf_counter()
            fisher_diagonal(model, task("sentiment"), examples=32, estimator="empirical")
            return (time.perf_counter() - start) / 32

        rows.append(
            {
                "weights": float(sum(p.numel() for p in model.parameters())),
                "step": median(repeats, partial(step, model, new, 32, steps)),
                "step with EWC": median(repeats, partial(step, model, new, 32, steps, [EWC(fisher, 1e-6)])),
                "Fisher of an example": median(repeats, look),
            }
        )
        print("  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()))
    return rows


def by_length(repeats: int, device: str) -> list[dict[str, float]]:
    model, rows = bert(256, 4, device, 512), []
    for length in LENGTHS:
        new = long_texts(length)
        rows.append({"tokens": float(length), "step": median(repeats, partial(step, model, new, 8, 2))})
        print("  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()))
    return rows


def by_watched(repeats: int, device: str) -> list[dict[str, float]]:
    model, rows = load("tiny-bert", device=device), []
    for count in range(len(WATCHED) + 1):
        watch = [task(name) for name in WATCHED[:count]]

        def measure(watch: Any = watch) -> float:
            model.restore()
            start = time.perf_counter()
            for _ in finetune(model, task("sentiment"), watch=watch, steps=50, every=10, limit=128):
                pass
            return time.perf_counter() - start

        rows.append({"watched tasks": float(count), "run": median(repeats, measure)})
        print("  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()))
    return rows


def by_runs(repeats: int, device: str) -> list[dict[str, float]]:
    base, rows = Recipe(new="sentiment", watch=("entities",), steps=20, every=20, limit=64, device=device), []
    bench = prepare(base)
    for count in RUNS:
        recipes = [replace(base, lr=1e-4 * (i + 1)) for i in range(count)]

        def measure(together: bool, recipes: Any = recipes) -> float:
            start = time.perf_counter()
            sweep(recipes, bench=bench, together=together)
            return time.perf_counter() - start

        rows.append({"runs": float(count)})
        for name, together in (("one by one", False), ("at once", True)):
            rows[-1][name] = median(repeats, partial(measure, together))
        print("  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()))
    return rows


def held(device: str) -> dict[str, dict[str, float]]:
    """What each remedy holds beyond plain fine-tuning, in copies of the model's weights."""
    found = {}
    for name in REMEDIES:
        model = load("tiny-bert", device=device)
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        methods = make_methods(name, [task("masked-lm"), task("entities")])
        first = next(finetune(model, task("sentiment"), methods=methods, watch=[task("entities")], steps=1, limit=1))
        trained = first.costs["trained_parameters"] * 4 / size
        found[name] = {"copies": round(first.costs["bytes"] / size, 2), "trained": round(trained, 3)}
        print(f"{name:<14}{found[name]['copies']:6.2f} copies held, {trained:6.1%} of the weights trained")
    return found


def short(value: float) -> str:
    return f"{value / 1e6:.2g}M" if value >= 1e5 else f"{value:g}"


def draw(result: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    panels = (
        ("by size", "weights", "seconds, log scale", "log"),
        ("by length", "tokens", "seconds, log scale", "log"),
        ("by watched tasks", "watched tasks", "seconds", "linear"),
        ("by runs", "runs", "seconds", "linear"),
    )
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for axes, (key, x, unit, scale) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        rows = result[key]
        for i, name in enumerate(n for n in rows[0] if n != x):
            marks = {"color": COLORS[i], "marker": "osD"[i], "ls": ("-", "--", ":")[i], "label": name}
            axes.plot([row[x] for row in rows], [row[name] for row in rows], **marks)
        axes.set(xlabel=f"{x}, log scale" if scale == "log" else x, ylabel=unit, xscale=scale, yscale=scale)
        axes.set_title(key, loc="left")
        axes.set_xticks([row[x] for row in rows], [short(row[x]) for row in rows])
        axes.minorticks_off()
        if scale == "log":
            lowest, highest = (f(row[n] for row in rows for n in row if n != x) for f in (min, max))
            ticks = [t for t in TICKS if lowest / 2 < t < highest * 2]
            axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
        else:
            axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    path.write_bytes(png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    asked = options.repeats, options.device
    result = {
        "device": device_name(load("tiny-bert", device=options.device)),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "repeats": options.repeats,
        "by size": by_size(*asked),
        "by length": by_length(*asked),
        "by watched tasks": by_watched(*asked),
        "by runs": by_runs(*asked),
        "held": held(options.device),
    }
    root = Path(__file__).parents[1]
    (root / "benchmarks" / "results" / f"scale-{options.device}.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, root / "docs" / "images" / "scale.png")


if __name__ == "__main__":
    main()
