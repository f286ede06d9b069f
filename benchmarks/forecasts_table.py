"""The page of benchmarks/forecasts.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCALES = {"points": "points (accuracy, F1)", "ratio": "ln of the factor (perplexity)"}


def page(results: Mapping[str, Any]) -> str:
    """benchmarks/results/forecasts.md."""
    lines = [
        "# Forecasts from 8 steps",
        "",
        "Runs of new tasks that the law was not fitted on, trials at other seeds than the run's; made by",
        "`python -m benchmarks.forecasts`. ρ is Spearman's between the forecast and by how much the score was worse;",
        "error is the mean absolute one. In brackets 95 % intervals over runs drawn anew.",
        "",
        *checks(results),
    ]
    for scale, words in SCALES.items():
        law = results["law"][scale]
        weights = ", ".join(f"{weight:.2f}" for weight in law["weights"])
        lines += ["", f"Law for {words}: a, b, c, d = {weights}; fitted on {law['results']} results."]
    return "\n".join(lines) + "\n"


def checks(results: Mapping[str, Any]) -> list[str]:
    """A table for each scale: a row for each set of runs, with the baselines below."""
    lines = list[str]()
    for scale, words in SCALES.items():
        head = f"{words} | runs | ρ | ρ within a task | error | inside the {100 * results['level']:.0f} % interval"
        lines += ["", f"| {head} |", "|" + " --- |" * 6]
        for name, found in results["sets"].items():
            if scale in found:
                own = found[scale]
                lines.append(_row(f"**{name}**", own, "middle", f"{own['runs']}", ends(own["coverage"])))
                if name == "all":
                    past = results["own past"][name][scale]
                    lines.append(_row("all, with own past runs", past, "middle", "", ends(past["coverage"])))
                    lines += [_row(key, own, key, "", "") for key in own["rho"] if key != "middle"]
    return lines[1:]


def _row(name: str, found: Mapping[str, Any], key: str, runs: str, coverage: str) -> str:
    cells = (ends(found["rho"][key]), ends(found["within"][key]), f"{found['error'][key]:.3f}")
    return "| " + " | ".join([name, runs, *cells, coverage]) + " |"


def ends(found: tuple[float, float, float]) -> str:
    middle, low, high = (f"{end:.2f}".replace("-", "−") for end in found)
    return f"{middle} ({low} to {high})"
