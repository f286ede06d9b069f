"""The tables of benchmarks/rewards.py from its runs: at equal reward, in pairs, and what goes with what is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


def by_row(results: Mapping[str, Any]) -> dict[str, dict[int, dict[str, float]]]:
    """{row: {seed: what is so at equal reward}}, seeds that came so far."""
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in results["made"]["rows"]}
    for run in results["runs"]:
        if reached := at_goal(run["looks"], results["made"]["goal"]):
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


def correlations(runs: Sequence[Run], goal: float | None = None) -> dict[tuple[str, str], tuple[float, float, float]]:
    """{(what was lost, measure): (ρ, low, high)} over all looks of the runs but the first, or where `goal` is reached.

    ρ is Spearman's; its interval is over runs drawn anew, as the looks of one run hang together.
    """
    groups = []
    for run in runs:
        first, *later = run["looks"]
        if goal is not None:
            later = [reached] if (reached := at_goal(run["looks"], goal)) else []
        if later:
            groups.append([rose(look, first) for look in later])
    keys = ("far", "near", *MEASURES)
    tables = [np.array([[look[key] for key in keys] for look in group]) for group in groups]

    def value(of: int, by: int) -> Any:
        def over(drawn: Sequence[int]) -> float:
            all_looks = np.concatenate([tables[i] for i in drawn])
            return spearman(all_looks[:, of], all_looks[:, by])

        return over

    return {
        (lost, measure): bootstrapped(value(i, j + 2), len(tables))
        for i, lost in enumerate(("far", "near"))
        for j, measure in enumerate(MEASURES)
    }


def page(results: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    made, rows = results["made"], by_row(results)
    first = results["runs"][0]["looks"][0]
    lines = [
        "# Demonstrations and rewards at equal reward",
        "",
        f"tiny-gpt learns to write praise; all are compared where answers to new prompts first have a reward of "
        f"{made['goal']:g}. Means over {made['seeds']} seeds with 95 % intervals. "
        f"Before: reward {first['reward']:.2f}, perplexity of far text {math.exp(first['far']):.2f} and of near text {math.exp(first['near']):.2f}, fluency "
        f"{first['fluency']:.3f}, distinct {first['distinct']:.2f}. KL in nats an answer, on the new prompts; drift "
        "‖θ − θ₀‖. How it is made, and what it says: docs/rewards-table.md. Made by `python -m benchmarks.rewards`.",
        "",
        _table(
            ["learned by", *TITLES.values(), "seeds"], [_row(name, own, made["seeds"]) for name, own in rows.items()]
        ),
        "",
        "## In pairs over the seeds",
        "",
        "Perplexities at equal reward against another row's of the same seed: below 1, less is lost.",
        "",
        _table(["learned by", "against", "far text", "near text"], _pairs(rows)),
        "",
        "## What goes with what is lost",
        "",
        "Spearman's ρ of the loss of far and of near text, with 95 % intervals from runs drawn anew.",
        "",
        _correlations(results["runs"], made["goal"]),
    ]
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


def _correlations(runs: Sequence[Run], goal: float) -> str:
    free = [run for run in runs if "β" not in run["name"]]
    cases = {
        "all looks of all runs": correlations(runs),
        "all looks, runs without β": correlations(free),
        "at equal reward, all runs": correlations(runs, goal),
        "at equal reward, runs without β": correlations(free, goal),
    }
    lines = []
    for what, found in cases.items():
        for lost in ("far", "near"):
            ends = [found[lost, measure] for measure in MEASURES]
            told = [f"{a:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−") for a, low, high in ends]
            lines.append([what, lost, *told])
    return _table(["over", "text", *(TITLES[measure] for measure in MEASURES)], lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))
