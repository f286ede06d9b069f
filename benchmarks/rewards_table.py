"""The tables of benchmarks/rewards.py from its runs: at equal reward, in pairs, and what goes with what is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.correlation import bootstrapped, spearman
from forgetlab.metrics.uncertainty import difference

Look = Mapping[str, float]
Run = Mapping[str, Any]

PLAIN = ("steps", "seconds", "fluency", "distinct", "drift", "reverse", "forward")
DIGITS = dict.fromkeys(PLAIN, 2) | {"steps": 0, "seconds": 1}
TITLES = {
    "steps": "steps",
    "seconds": "s of one core",
    "far": "far text, perplexity ×",
    "near": "near text, perplexity ×",
    "fluency": "fluency",
    "distinct": "distinct",
    "drift": "drift",
    "reverse": "KL(now ‖ before)",
    "forward": "KL(before ‖ now)",
}
MEASURES = ("drift", "reverse", "forward")


def at_goal(looks: Sequence[Look], goal: float) -> dict[str, float] | None:
    """What is so where the reward is first `goal`; None where it never is.

    On a straight line between the look before and that one; "far" and "near" are nats, so perplexities on a log scale.
    """
    for before, after in pairwise(looks):
        if after["reward"] >= goal:
            rise = after["reward"] - before["reward"]
            way = min(1.0, max(0.0, (goal - before["reward"]) / rise)) if rise > 0 else 1.0
            return {key: before[key] + way * (after[key] - before[key]) for key in after}
    return None


def rose(look: Look, first: Look) -> dict[str, float]:
    """A look with what "far" and "near" have lost since the first one, in nats."""
    return {**look, **{key: look[key] - first[key] for key in ("far", "near")}}


def by_row(results: Mapping[str, Any], goal: float) -> dict[str, dict[int, dict[str, float]]]:
    """{row: {seed: what is so at equal reward}}, for the seeds that came so far."""
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in results["made"]["rows"]}
    for run in results["runs"]:
        if reached := at_goal(run["looks"], goal):
            found[run["name"]][run["seed"]] = rose(reached, run["looks"][0])
    return found


def reference(name: str, rows: Mapping[str, Any]) -> str | None:
    """What a row is compared with: itself without β, else demonstrations like the language at its rate."""
    kind, *more = name.split(", ")
    other = f"{kind}, {more[-1]}" if any("β" in part for part in more) else f"SFT like, {more[-1]}"
    return other if other != name and other in rows else None


def factor(values: Sequence[float]) -> str:
    """ "×1.17 (1.10 to 1.24)": the geometric mean of factors given in nats, with its 95 % interval over seeds."""
    if not values:
        return ""
    apart = difference(values)
    if not math.isfinite(apart.high):
        return f"×{math.exp(apart.mean):.3f}"
    middle, low, high = (math.exp(end) for end in (apart.mean, apart.low, apart.high))
    return f"×{middle:.3f} ({low:.3f} to {high:.3f})"


def number(values: Sequence[float], digits: int) -> str:
    """ "0.94 ±0.03": the mean, with half its 95 % interval over seeds."""
    if not values:
        return ""
    apart = difference(values)
    return f"{apart.mean:.{digits}f}" + (f" ±{apart.high - apart.mean:.{digits}f}" if len(values) > 1 else "")


def correlations(
    runs: Sequence[Run], goal: float | None = None, draws: int = 1000
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """{"far" or "near": {measure: (ρ, low, high)}} over the looks after the first, or where `goal` is reached.

    ρ is Spearman's; its interval is over runs drawn anew, as the looks of one run hang together.
    """
    groups, keys = list[Any](), ("far", "near", *MEASURES)
    for run in runs:
        first, *later = run["looks"]
        if goal is not None:
            later = [reached] if (reached := at_goal(run["looks"], goal)) else []
        if later:
            groups.append(np.array([[rose(look, first)[key] for key in keys] for look in later]))

    def over(lost: int, measure: int, drawn: Sequence[int]) -> float:
        looks = np.concatenate([groups[i] for i in drawn])
        return spearman(looks[:, lost], looks[:, measure])

    return {
        keys[i]: {keys[j]: bootstrapped(partial(over, i, j), len(groups), draws) for j in range(2, len(keys))}
        for i in (0, 1)
    }


def all_correlations(runs: Sequence[Run], goals: Sequence[float], draws: int = 1000) -> dict[str, Any]:
    """Of all runs and of those without β: over all looks, and at each equal reward."""
    free = [run for run in runs if "β" not in run["name"]]
    found = {}
    for goal in (None, *goals):
        what = "all looks" if goal is None else f"where the reward is {goal:g}"
        found[what] = correlations(runs, goal, draws)
        found[f"{what}, without β"] = correlations(free, goal, draws)
    return found


def page(results: Mapping[str, Any]) -> str:
    """All tables as Markdown. results: what rewards.json holds."""
    made, first = results["made"], results["runs"][0]["looks"][0]
    main, *others = made["goals"]
    lines = [
        "# Demonstrations and rewards at equal reward",
        "",
        "tiny-gpt learns to write praise. All are compared where the answers to new prompts first have the same",
        f"reward; means over {made['seeds']} seeds with 95 % intervals, and how many seeds came so far. Before: reward",
        f"{first['reward']:.2f}, perplexity of far text {math.exp(first['far']):.2f} and of near text",
        f"{math.exp(first['near']):.2f}, fluency {first['fluency']:.3f}, distinct {first['distinct']:.2f}. Fluency is",
        "that of texts from nothing; distinct, and both KL in nats an answer, are of answers to the new prompts; drift",
        "is ‖θ − θ₀‖.",
        "How this is made, what it says and what it does not: docs/rewards-table.md.",
        "Made by `python -m benchmarks.rewards`.",
    ]
    for goal in (main, *others):
        rows = by_row(results, goal)
        lines += ["", f"## Where the reward is {goal:g}", ""]
        told = [_row(name, own, made["seeds"]) for name, own in rows.items()]
        lines += [_table(["learned by", *TITLES.values(), "seeds"], told)]
        lines += ["", "In pairs over the seeds, the perplexity against another row's; below 1, less is lost:", ""]
        lines += [_table(["learned by", "against", "far text", "near text"], _pairs(rows))]
    lines += ["", "## What goes with what is lost", ""]
    lines += ["Spearman's ρ of the nats lost, with 95 % intervals from whole runs drawn anew.", ""]
    lines += [_correlations(results["correlations"])]
    return "\n".join(lines)


def _row(name: str, own: Mapping[int, Look], seeds: int) -> list[str]:
    cells = []
    for key in TITLES:
        values = [look[key] for look in own.values()]
        cells.append(number(values, DIGITS[key]) if key in DIGITS else factor(values))
    return [name, *cells, f"{len(own)} of {seeds}"]


def _pairs(rows: Mapping[str, Mapping[int, Look]]) -> list[list[str]]:
    found = []
    for name, own in rows.items():
        other = reference(name, rows)
        seeds = [seed for seed in own if other and seed in rows[other]]
        if other and seeds:
            apart = [[own[seed][key] - rows[other][seed][key] for seed in seeds] for key in ("far", "near")]
            found.append([name, other, *map(factor, apart)])
    return found


def _correlations(found: Mapping[str, Any]) -> str:
    lines = []
    for what, both in found.items():
        for lost, by in both.items():
            told = [f"{a:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−") for a, low, high in by.values()]
            lines.append([what, lost, *told])
    return _table(["over", "text", *(TITLES[measure] for measure in MEASURES)], lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))
