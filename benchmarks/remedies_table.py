"""The tables of benchmarks/remedies.py, from its runs: scores, shares, verdicts in pairs, and what it costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from forgetlab.experiments.frontier import dots, shares
from forgetlab.experiments.recommendation import verdicts

Run = dict[str, Any]
Tasks = Sequence[Any]

ENOUGH = 0.9  # of what plain fine-tuning has learned at its end: there, what is kept is compared
TITLES = {
    "sentiment": "the words of half of the reviews are turned (not, never, far from, but, although, denied)",
    "plain": "no word is turned",
}
TIMES = "A step's time is relative to one of plain fine-tuning right before; medians of five short runs each."
SCORES = ("masked-lm perplexity", "entities F1", "acceptability")
COSTS = ("time a step", "set-up, s", "memory, copies of the weights", "weights trained", "weights added")


def verdicts_of(runs: Mapping[str, Sequence[Run]], tasks: Tasks) -> list[Any]:
    """Each row against "none", in pairs over the seeds, with the 95 % interval that seeds and test items leave."""
    named = [
        {"recipe": {"methods": name, "seed": run["seed"]}, "records": run["records"]}
        for name, own in runs.items()
        for run in own
    ]
    return verdicts(dots(named, tasks))  # type: ignore[arg-type]


def kept_at(records: Sequence[Any], tasks: Tasks, target: float, ends: bool = False) -> float | None:
    """The share of the old that is kept where a run has first learned `target` of the new; None where it never has.

    Between two looks both go on a straight line. ends: the weights at the end count alone.
    """
    looks = [found for i in range(len(records)) if (found := shares([records[0], records[i]], tasks))]
    if ends:
        looks = looks[-1:] * 2
    for (kept, new), (kept_next, new_next) in pairwise(looks):
        if new_next >= target:
            way = 1.0 if new_next == new else min(1.0, max(0.0, (target - new) / (new_next - new)))
            return kept + way * (kept_next - kept)
    return None


def matched(runs: Sequence[Run], plain: Sequence[Run], tasks: Tasks, ends: bool = False) -> list[float]:
    """`kept_at` of each seed, where as much is learned as nine tenths of what plain fine-tuning learns at that seed."""
    found = []
    for run, other in zip(runs, plain, strict=True):
        end = shares(other["records"], tasks)
        value = None if end is None else kept_at(run["records"], tasks, ENOUGH * end[1], ends)
        found += [] if value is None else [value]
    return found


def page(results: Mapping[str, Any], news: Sequence[str]) -> str:
    """All tables as Markdown. results: what remedies.json holds; news: its new tasks, its own first."""
    made = results["made"]
    lines = [
        "# Every remedy at its best strength",
        "",
        f"tiny-bert learns to tell good reviews from bad ones for {made['steps']} steps (batch 32, AdamW 1e-3 or the",
        'rate after "@") and is scored on 256 test texts of each task. Strengths and rates were chosen on validation',
        f"texts and two seeds of their own; what stands here is of {made['seeds']} other seeds, mean ± standard",
        "deviation. The balance is ½ the share of the new task that is learned + ½ the mean share of the old scores",
        "that is kept, above a guesser who knows only the frequencies, of a perplexity in nats. Against plain",
        "fine-tuning: the difference of the balance, in pairs over the seeds, with the 95 % interval that seeds and",
        f"test items leave. Kept at equal learning: the share kept where a run has learned {ENOUGH:g} of what plain",
        "fine-tuning of its seed learns in the end. Early stopping (on the new and the old tasks) and the brake look",
        "at validation texts.",
        "Made by `python -m benchmarks.remedies`.",
    ]
    for i, new in enumerate(news):
        block = results[new] if i else results
        lines += ["", f"## {new}: {TITLES[new]}", "", _before(block), "", _scores(new, block)]
        if block["edge"]:
            lines += ["", f"Best at the edge of what was tried: {', '.join(block['edge'])}."]
        if block["long"]:
            words = f"{made['long']} steps for what is added or frozen, against {made['steps']} of plain fine-tuning:"
            lines += ["", words, "", _scores(new, block, "long")]
    lines += ["", "## What it costs", "", TIMES, "", _costs(results["costs"])]
    return "\n".join(lines)


def _before(block: Mapping[str, Any]) -> str:
    first = block["best"]["none"][0]["before"]
    guess = {fact["name"]: fact["guess"] for fact in block["tasks"]}
    told = (f"{name} {value:.2f} (a guesser {guess[name]:.2f})" for name, value in first.items())
    return f"Before: {', '.join(told)}."


def _scores(new: str, block: Mapping[str, Any], which: str = "best") -> str:
    before, suffix = ("", "") if which == "best" else ("long_", ", longer")
    told = {row["methods"]: row for row in block[f"{before}verdicts"]}
    found = []
    for name, runs in block[which].items():
        new_shares, old_shares = ([run[key] or 0.0 for run in runs] for key in ("learned", "kept"))
        both = [(a + b) / 2 for a, b in zip(new_shares, old_shares, strict=True)]
        cells = [name, f"`{runs[0]['spec']}`"]
        cells += [mean([run["after"][fact["name"]] for run in runs], 2) for fact in block["tasks"]]
        cells += [mean(new_shares, 2), mean(old_shares, 2), mean(both, 3), spoken(told.get(name + suffix))]
        cells.append(equal(block[f"{before}kept_at_equal_learning"][name], len(runs)))
        found.append((statistics.fmean(both), cells))
    head = ["remedy", "at its best", new, *SCORES, "learned", "kept", "balance"]
    head += ["against plain fine-tuning", "kept at equal learning"]
    return _table(head, [cells for _, cells in sorted(found, key=lambda pair: -pair[0])])


def _costs(costs: Mapping[str, Mapping[str, float]]) -> str:
    weights = costs["none"]["trained_parameters"]
    lines = []
    for name, row in costs.items():
        cells = [name, f"×{row['step']:.2f}", f"{row['setup']:.1f}", f"{row['bytes'] / 4 / weights:.2f}"]
        lines.append([*cells, f"{row['trained_parameters']:,.0f}", f"{row['added_parameters']:,.0f}"])
    return _table(["remedy", *COSTS], lines)


def mean(values: Sequence[float | None], digits: int) -> str:
    """ "0.94 ±0.03"; "–" where a value is not finite, as a run diverged."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    spread = f" ±{statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{spread}"


def spoken(row: Mapping[str, Any] | None) -> str:
    """A verdict with its interval, such as "helps: +0.26 (+0.18 to +0.34)"."""
    if row is None:
        return ""
    ends = [row["balance"][i] for i in range(3)]
    if None in ends:
        return row["verdict"]
    middle, low, high = (f"{end:+.3f}".replace("-", "−") for end in ends)
    return f"{row['verdict']}: {middle} ({low} to {high})"


def equal(values: Sequence[float], seeds: int) -> str:
    """What is kept at equal learning, and at how many seeds so much was learned at all."""
    if not values:
        return "never learns as much"
    return mean(values, 2) + ("" if len(values) == seeds else f" ({len(values)} of {seeds} seeds)")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))
