"""Ways between a model and its fine-tune, each at its best, against plain α: which one keeps more at equal new score?

python -m benchmarks.repairs [--seeds 8] [--only NAME …] [--real MODEL REVIEWS.csv ENTITIES.conll] [--out FOLDER]
All are θ = θ_before + m ∘ (θ_after − θ_before); each has LOOKS looks at 100 test texts of each task to set its m, by
the rule of `forgetlab.diff.repair`; what stands in the table is measured on the other test texts, seeds in pairs.
Writes results/repairs.json, a part as it is done (started again before all are, it goes on there), repairs.md and the
table in docs/diff-repair.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.ways import LOOKS, WAYS, WITHIN, Bench, Case, Setting, best_of, by_layer, searched
from forgetlab.diff.repair.choice import FEW
from forgetlab.diff.repair.found import Look
from forgetlab.metrics import layer_of
from forgetlab.metrics.uncertainty import difference

DOCS = Path(__file__).parents[1] / "docs" / "diff-repair.md"
START, END = "<!-- made by benchmarks/repairs.py -->\n\n", "\n\n<!-- to here -->\n"
CURVE = (*(i / 10 for i in range(8)), *(i / 40 for i in range(30, 41)))  # of plain α on the unseen texts

SETTINGS = {
    "reviews": Setting("tiny-bert", "sentiment", ("entities", "acceptability", "masked-lm")),
    "clinic": Setting("tiny-bert", "masked-lm:clinic", ("entities", "acceptability", "masked-lm")),
    "notices": Setting("tiny-gpt", "causal-lm:notices", ("causal-lm", "cloze")),
}


def measured(bench: Bench, seed: int) -> dict[str, Any]:
    """Of a seed: α's curve on the unseen texts, and of each way what it chose and what that scores there."""
    case, ways = Case(bench, seed), dict[str, Any]()
    curve = [case.look(alpha, "unseen") for alpha in CURVE]
    for name in (*WAYS, "α by layer"):
        tried = by_layer(case) if name == "α by layer" else searched(case, WAYS[name])
        tried.append((1.0, case.look(1.0)))  # AFTER is always within the budget
        number = best_of(case, tried)
        share, seen = tried[number]
        unseen = case.look(share, "unseen")
        gain = equal(curve, unseen["new"]) - unseen["old"]
        ways[name] = {"look": number, "seen": seen, "unseen": unseen, "gain": gain}
        if name == "α by layer":
            ways[name]["alphas"] = {layer_of(n): a for n, a in share.items()} if isinstance(share, dict) else share
    return rounded({"seed": seed, "curve": [[one["alpha"], one["old"], one["new"]] for one in curve], "ways": ways})


def rounded(found: Any) -> Any:
    """Plain values with five digits behind the point, as results keep them."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items() if name != "layers"}
    return [rounded(value) for value in found] if isinstance(found, list) else round(found, 5)


def equal(curve: Sequence[Look], new: float) -> float:
    """The old share that plain α loses where its new loss is `new`: on a straight line between two points.

    From its best new score on, the way down to α = 0; where it has no such new score, what it loses at its best one.
    """
    best = min(range(len(curve)), key=lambda i: (curve[i]["new"], i))
    for upper, lower in zip(curve[best:0:-1], curve[best - 1 :: -1] if best else (), strict=True):
        if upper["new"] <= new < lower["new"]:
            way = (new - upper["new"]) / (lower["new"] - upper["new"])
            return upper["old"] + way * (lower["old"] - upper["old"])
    return curve[best]["old"] if new < curve[best]["new"] else curve[0]["old"]


def rows(cases: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, list[float]]]:
    """{way: {what: [mean, low, high]}} over all seeds of all settings given, in pairs with plain α."""
    pairs = [case["ways"] for found in cases.values() for case in found]
    told = {}
    for name in pairs[0]:
        own, plain = [one[name]["unseen"] for one in pairs], [one["one α"]["unseen"] for one in pairs]
        columns = {
            "kept": [1 - one["old"] for one in own],
            "new": [-one["new"] for one in own],
            "kept against α": [b["old"] - a["old"] for a, b in zip(own, plain, strict=True)],
            "new against α": [b["new"] - a["new"] for a, b in zip(own, plain, strict=True)],
            "kept at equal new": [one[name]["gain"] for one in pairs],
        }
        ends = {what: difference(values) for what, values in columns.items()}
        told[name] = {what: [d.mean, d.low, d.high] for what, d in ends.items()}
    return told


def page(results: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    made, cases = results["made"], results["cases"]
    lines = [
        "# Ways between a model and its fine-tune",
        "",
        f"θ = θ_before + m ∘ (θ_after − θ_before). Each way to set m has {LOOKS} looks at {FEW} test texts of each",
        "task and takes what loses least of the old within",
        f"{WITHIN:g} of the new score (points, or nats of a perplexity). All numbers are of the other test texts,",
        f"of {made['how'][0]} fine-tunes of each setting. Kept: mean share of what was known above a guesser. Against",
        "α: in pairs over the fine-tunes, with 95 % intervals. At equal new score: against the point on plain α's",
        "curve with the same new score. A way beats α where that interval is above 0.",
        "Made by `python -m benchmarks.repairs`.",
    ]
    titles = {"all": "All settings"} | {name: f"{name}: {made['settings'][name]}" for name in cases}
    for key, title in titles.items():
        lines += ["", f"## {title}", "", *_table(rows(cases if key == "all" else {key: cases[key]}))]
    return "\n".join(lines) + "\n"


def _table(told: Mapping[str, Mapping[str, list[float]]]) -> list[str]:
    head = [
        "way",
        "kept",
        "new score − AFTER's",
        "kept against α",
        "new against α",
        "kept at equal new score",
        "beats α",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name, row in told.items():
        cells = [name, f"{row['kept'][0]:.3f}", _signed(row["new"][0])]
        compared = [f"{_signed(m)} ({_signed(low)} to {_signed(high)})" for m, low, high in list(row.values())[2:]]
        word = "" if name == "one α" else difference_word(row["kept at equal new"])
        lines.append(f"| {' | '.join([*cells, *(compared if name != 'one α' else ('', '', compared[2])), word])} |")
    return lines


def with_table(page: str, cases: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A page of the documentation with the table of all settings in its place."""
    before, after = page.split(START)
    return before + START + "\n".join(_table(rows(cases))) + END + after.split(END)[1]


def difference_word(ends: Sequence[float]) -> str:
    return "yes" if ends[1] > 0 else "no: worse" if ends[2] < 0 else "cannot be told"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS))
    parser.add_argument("--real", nargs=3, metavar=("MODEL", "REVIEWS", "ENTITIES"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {name: SETTINGS[name] for name in (options.only if options.only is not None else SETTINGS)}
    if options.real:
        model, reviews, entities = options.real
        settings["encoder"] = Setting(model, reviews, (entities,), 60, 2e-4, 16, first=200, limit=400)
    path, start = options.out / "repairs.json", time.process_time()
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"made": {}}
    same = kept["made"].get("how") == [options.seeds, LOOKS, FEW, WITHIN]
    cases, told = (kept["cases"], kept["made"]["settings"]) if same else ({}, {})
    for name, one in settings.items():
        old = [Path(each).name for each in one.old]
        told[name] = f"{Path(one.model).name} learns {Path(one.new).name}, had {', '.join(old)}"
    made = {"how": [options.seeds, LOOKS, FEW, WITHIN], "settings": told}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, setting in settings.items():
        if len(cases.get(name, ())) < options.seeds:
            bench = Bench(setting)
            cases[name] = [measured(bench, seed) for seed in range(options.seeds)]
        path.write_text(json.dumps({"made": made, "cases": cases}) + "\n", encoding="utf-8")
        print(f"{time.process_time() - start:.0f} s of one core: {name}", flush=True)
    text = page({"made": made, "cases": cases})
    (options.out / "repairs.md").write_text(text, encoding="utf-8")
    print(text)
    if options.out == parser.get_default("out"):
        DOCS.write_text(with_table(DOCS.read_text(encoding="utf-8"), cases), encoding="utf-8")


if __name__ == "__main__":
    main()
