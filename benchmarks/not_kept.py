"""What was tried and has no place among the remedies: losses that weigh examples, a share for each layer, forecasts.

python -m benchmarks.not_kept [--seeds 5] [--steps 200] [--out FILE]
By the rules of benchmarks/remedies.py: tiny-bert on `plain` and `sentiment`, strengths chosen on validation texts and
seeds of their own, test texts and other seeds reported, in pairs with plain fine-tuning. Writes results/not_kept.json,
a part as it is done (started again before all are, it goes on there), and the table in docs/table-of-remedies.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.choosing import chosen
from benchmarks.remedies import CHOOSING_SEEDS, LIMIT, METRIC, NEW, RATE, WATCH, balances, benches, facts
from benchmarks.remedies_table import mean, spoken, verdicts_of
from benchmarks.slopes import forecasts
from benchmarks.weighing import DFT, Weighed, flow, stm
from forgetlab.experiments.recipes import Bench
from forgetlab.metrics import layer_of
from forgetlab.remedies.architectures import Frozen
from forgetlab.remedies.regularizers import LwF
from forgetlab.tasks import Classification, MaskedLM, Task
from forgetlab.training.loop import finetune
from forgetlab.training.method import Method

Run = dict[str, Any]
Shares = dict[str, float]  # of each layer, how much of its way it goes

ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
ROWS: dict[str, tuple[float, ...]] = {  # the rungs of each: λ, share of examples that count, τ over the median, α
    "none": (0,), "DFT": (0,), "KL before ‖ now": (0.3, 1, 3, 10), "ASFT": (0.3, 1, 3, 10),
    "STM": (0.25, 0.5, 0.75, 0.9), "FLOW": (0.1, 0.3, 1, 3), "one α": ALPHAS, "α by layer": (0,),
}  # fmt: skip
DOCS = Path(__file__).parents[1] / "docs" / "table-of-remedies.md"
START, END = "<!-- made by benchmarks/not_kept.py -->\n\n", "\n\n<!-- to here -->\n"
BESIDE = {"ASFT": "KL before ‖ now", "α by layer": "one α"}  # what each is more of


def made(name: str, rung: float, bench: Bench, before: Tensor) -> tuple[Task, list[Method]]:
    """The task and the methods of a row. ASFT: DFT + λ KL(before ‖ now), its eq. 6 (2509.23753), on the LM head."""
    new = bench.new
    assert isinstance(new, Classification)
    kind = DFT if name in ("DFT", "ASFT") else Weighed if name in ("STM", "FLOW") else Classification
    one = kind(new.name, new.train, new.test, head=new.head)
    if isinstance(one, Weighed):
        weights = stm(before, rung) if name == "STM" else flow(before, rung)
        one.weights = weights / weights.mean()
    hold = name in ("ASFT", "KL before ‖ now")  # LwF's KL(q₀ ‖ q) at temperature 1 is that term
    old = [each for each in bench.watch if isinstance(each, MaskedLM)]
    return one, [LwF(old, lam=rung, temperature=1.0)] if hold else []


@torch.no_grad()
def losses_before(bench: Bench, steps: int) -> Tensor:
    """(N,) cross-entropy of each training example, by a head trained on the frozen model, as it had none."""
    model, new = bench.model, bench.new
    model.restore()
    options: dict[str, Any] = {"steps": steps, "every": steps, "lr": 1e-2, "seed": CHOOSING_SEEDS[0], "limit": 8}
    with torch.enable_grad():
        list(finetune(model, new, methods=[Frozen()], **options))
    batches = (new.batch(model, rows, torch.Generator()) for rows in torch.arange(new.size()).split(64))
    return torch.cat([F.cross_entropy(new.logits(model, b), b["targets"], reduction="none") for b in batches])


def look(bench: Bench, step: int) -> dict[str, Any]:
    """The scores of the model as it is, as in a record."""
    found = {one.name: one.scored(bench.model, LIMIT) for one in (bench.new, *bench.watch)}
    tallies = {name: tally.plain() for name, (_, tally) in found.items() if tally is not None}
    return {"step": step, "status": "done", "scores": {name: s for name, (s, _) in found.items()}, "tallies": tallies}


def trained(bench: Bench, name: str, rung: float, before: Tensor, seed: int, steps: int) -> Run:
    bench.model.restore()
    one, methods = made(name, rung, bench, before)
    options: dict[str, Any] = {"steps": steps, "every": steps, "lr": RATE, "seed": seed, "limit": LIMIT}
    records = [r.as_dict() for r in finetune(bench.model, one, methods=methods, watch=bench.watch, **options)]
    return {"seed": seed, "rung": rung, "records": [records[0], records[-1]]}


class Ways:
    """Plain runs of some seeds, to be gone back on: θ = θ₀ + α_layer (θ_end − θ₀), new heads as they are."""

    def __init__(self, bench: Bench, seeds: Sequence[int], before: Tensor, steps: int) -> None:
        bench.model.restore()
        self.bench, self.start, self.ends = bench, bench.model.snapshot(), list[tuple[Run, dict[str, Tensor]]]()
        for seed in seeds:
            self.ends.append((trained(bench, "none", 0, before, seed, steps), bench.model.snapshot()))
        moved = [name for name, weight in self.start.items() if not torch.equal(weight, self.ends[0][1][name])]
        self.layers = sorted({layer_of(name) for name in moved})

    @torch.no_grad()
    def at(self, alphas: Shares) -> list[Run]:
        model, found = self.bench.model, list[Run]()
        self.bench.new.prepare(model)
        for run, end in self.ends:
            for name, weight in model.named_parameters():
                part = alphas.get(layer_of(name), 1.0)
                weight.copy_(end[name] if part == 1 else torch.lerp(self.start[name], end[name], part))
            first, last = run["records"]
            found.append({**run, "rung": alphas, "records": [first, look(self.bench, last["step"])]})
        return found

    def all(self, part: float) -> list[Run]:
        return self.at(dict.fromkeys(self.layers, part))

    def by_layer(self, alphas: Shares, tasks: list[Any]) -> Shares:
        """The best share of each layer in turn, twice over, from the best one for all."""
        for layer in self.layers * 2:
            tried = {part: self.at({**alphas, layer: part}) for part in ALPHAS}
            alphas = {**alphas, layer: chosen(balances(tried, tasks)) or 0.0}
        return alphas


def block(new: str, seeds: int, steps: int) -> dict[str, Any]:
    """All rows of a new task: chosen on validation texts, then run on test texts."""
    of, tasks = benches(new), facts(new)
    before, own = losses_before(of["test"], 3 * steps), tuple(range(seeds))
    validation, test = (
        Ways(of[split], s, before, steps) for split, s in (("validation", CHOOSING_SEEDS), ("test", own))
    )
    search, best = dict[str, Any](), dict[str, list[Run]]()
    for name, rungs in ROWS.items():
        if name == "α by layer":
            one = dict.fromkeys(validation.layers, search["one α"]["rung"])
            best[name] = test.at(validation.by_layer(one, tasks["validation"]))
            continue
        runs: Callable[..., list[Run]] = partial(_runs, name, before, steps)
        tried = balances({r: runs(r, of["validation"], CHOOSING_SEEDS, validation) for r in rungs}, tasks["validation"])
        search[name] = {"rung": (rung := chosen(tried)), "balances": tried}
        best[name] = runs(rung, of["test"], own, test)
    return {
        "search": search,
        "best": {name: [_end(run, new) for run in runs] for name, runs in best.items()},
        "verdicts": verdicts_of(best, tasks["test"]),
        "beside": {a: verdicts_of({"none": best[b], a: best[a]}, tasks["test"])[0] for a, b in BESIDE.items()},
    }


def _runs(
    name: str, before: Tensor, steps: int, rung: Any, bench: Bench, seeds: Sequence[int], ways: Ways
) -> list[Run]:
    if name in ("none", "one α"):
        return ways.all(1.0 if name == "none" else rung)
    return [trained(bench, name, rung, before, seed, steps) for seed in seeds]


def _end(run: Run, new: str) -> dict[str, Any]:
    scores = run["records"][-1]["scores"]
    return {"seed": run["seed"], "rung": run["rung"]} | {one: scores[one][METRIC[one]] for one in (new, *WATCH)}


def table(results: Mapping[str, Any]) -> str:
    """The rows of the new tasks as Markdown, and what forecasts are worth; of what is measured so far."""
    head = "new task | tried | chosen | learned | masked-lm perplexity | against plain fine-tuning | against its part"
    lines = [f"| {head} |", "|" + " --- |" * 7]
    for new, found in ((new, results[new]) for new in NEW if new in results):
        told = {row["methods"]: row for row in found["verdicts"]}
        for name, runs in found["best"].items():
            scores = (mean([run[new] for run in runs], 2), mean([run["masked-lm"] for run in runs], 1))
            verdicts = (spoken(told.get(name)), spoken(found["beside"].get(name)))
            lines.append("| " + " | ".join([new, name, _chosen(found, name), *scores, *verdicts]) + " |")
    if "forecasts" in results:
        lines += ["", "| forecast before the first step | ρ with the rise of the old loss |", "| --- | --- |"]
        for name, ends in results["forecasts"]["correlations"].items():
            middle, low, high = (f"{end:+.2f}".replace("-", "−") for end in ends)
            lines.append(f"| {name} | {middle} ({low} to {high}) |")
    left = [name for name in (*NEW, "forecasts") if name not in results]
    lines += ["", f"Not measured yet: {', '.join(left)}."] if left else []
    return "\n".join(lines)


def _chosen(found: Mapping[str, Any], name: str) -> str:
    if name == "α by layer":
        parts = found["best"][name][0]["rung"]
        return ", ".join(f"{layer} {part:g}" for layer, part in parts.items() if layer != "lm head")  # tied
    return f"{found['search'][name]['rung']:g}" if len(ROWS[name]) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "not_kept.json")
    options = parser.parse_args()
    start, made_so = time.process_time(), {"seeds": options.seeds, "steps": options.steps}
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    results: dict[str, Any] = kept if kept.get("made") == made_so and "forecasts" not in kept else {"made": made_so}
    parts = {new: partial(block, new, options.seeds, options.steps) for new in NEW}
    for name, part in {**parts, "forecasts": partial(forecasts, range(min(2, options.seeds)), options.steps)}.items():
        results[name] = results.get(name) or part()
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{time.process_time() - start:.0f} s of one core: {name}", flush=True)
    before, after = DOCS.read_text(encoding="utf-8").split(START)
    DOCS.write_text(before + START + table(results) + END + after.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
