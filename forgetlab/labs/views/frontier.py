"""The picture of the frontier lab: the dots are drawn once, the budget, the target and the learner's stars move."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, get_args

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import blended_transform_factory

from forgetlab.experiments.frontier import Dot, best_within
from forgetlab.labs.kit.curves import MARKERS
from forgetlab.labs.kit.figure import blank, dress, titled
from forgetlab.metrics.retention import pareto
from forgetlab.plots.style import COLORS, FAINT, HALO, INK, number
from forgetlab.training.method import Family

LOOKS = {name: (COLORS[i], MARKERS[i]) for i, name in enumerate(get_args(Family))}
STAR: Any = {"marker": "*", "ls": "", "color": "#ffd700", "mec": INK}
NOTE: Any = {"textcoords": "offset points", "fontsize": 12, "weight": "bold", "color": INK, "path_effects": HALO}
LISTED, SHORT = 4, 2  # of the learner's own runs; where the words take less room


class OwnRun(TypedDict):
    """A learner's run so far. kept, new: None where it diverged."""

    spec: str
    step: int
    lr: float
    seed: int
    kept: float | None
    new: float | None


class Frontier(TypedDict):
    """What was measured, and a run."""

    dots: list[Dot]
    run: OwnRun
    progress: str
    message: NotRequired[str]


class Plot:
    """A figure with the dots of `frontier.read_benchmark`; `draw` adds the rest and returns it."""

    def __init__(self, dots: Sequence[Dot]) -> None:
        self.dots = list(dots)
        self.figure, self._source = blank(9.2)
        self.ax, words = self.figure.subplots(2, 1, height_ratios=(1.5, 1.15))
        ax = self.ax
        words.axis("off")
        place = blended_transform_factory(self.figure.transFigure, words.transAxes)
        style: Any = {"va": "top", "fontsize": 11, "color": INK, "linespacing": 1.2, "in_layout": False}
        self._text = words.text(0.03, 1, "", transform=place, **style)
        self._words, self._place = words, place
        self.means = [(statistics.fmean(dot["kept"]), statistics.fmean(dot["new"])) for dot in dots]
        self.front = pareto(self.means)
        self._corner = Rectangle((0, 0), 1, 1, color="#e6f0e0", lw=0, zorder=0)
        ax.add_patch(self._corner)
        self._limit = ax.axvline(1, color=INK, lw=1.5, ls="--")
        self._target = ax.axhline(1, color=FAINT, lw=1, ls=":")
        self._own: list[Artist] = []
        ax.plot(*zip(*[self.means[i] for i in self.front], strict=True), color=INK, lw=1, alpha=0.6) if dots else None
        for family, (color, marker) in LOOKS.items():
            own = [dot for dot in dots if dot["family"] == family]
            tried = [end for dot in own for end in dot["tried"]]
            ax.plot([x for x, _ in tried], [y for _, y in tried], marker, color=color, ms=3, alpha=0.35, zorder=1)
            xs, ys = ([statistics.fmean(dot[key]) for dot in own] for key in ("kept", "new"))
            dx, dy = ([_spread(dot[key]) for dot in own] for key in ("kept", "new"))
            ax.errorbar(xs, ys, dy, dx, fmt=marker, color=color, ms=8, mec="white", lw=1, capsize=2, zorder=3)
        for rank, i in enumerate(self.front[::-1], start=1):
            ax.annotate(str(rank), self.means[i], (6, 6), zorder=6, **NOTE)
        ax.set_ylim(0.4, 1.03)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
        dress(ax, "", "share kept of the old scores", "accuracy on the new task (share)")
        names = {"none": "no remedy"}
        keys = [Line2D([], [], color=c, marker=m, ls="", ms=8, label=names.get(k, k)) for k, (c, m) in LOOKS.items()]
        keys.append(Line2D([], [], ms=14, label="your runs", **STAR))
        style = {"fontsize": 11, "labelcolor": INK, "frameon": False, "handletextpad": 0.2, "columnspacing": 1.2}
        self.figure.legend(handles=keys, loc="outside lower center", ncols=4, **style)

    def draw(
        self, league: Sequence[OwnRun], budget: float, target: float, source: str = "live", short: int = 0
    ) -> tuple[Figure, str]:
        """The figure and its alt text.

        league: the learner's runs, newest last. budget: share of the old that may be lost; target: new accuracy wanted.
        short: the words take less room, so many of the front stand in a line.
        """
        ax, limit = self.ax, 1 - budget
        self._source.set_text(source)
        self._corner.set_bounds(limit, target, 1.1 - limit, 1.1 - target)
        self._limit.set_xdata([limit, limit])
        self._target.set_ydata([target, target])
        best = best_within(self.dots, budget)
        named = f"best within {budget:.0%} forgotten: {best['name']}" if best else f"no dot within {budget:.0%}"
        titled(ax, named if self.dots else "no shipped runs here")
        while self._own:
            self._own.pop().remove()
        listed, reached = [], 0
        for place, run in enumerate(league):
            letter = chr(ord("a") + place % 26)
            how = f"@ {run['lr']:.2g}" if short else f"({run['step']} steps, rate {run['lr']:.2g}, seed {run['seed']})"
            words = f"{letter}  {run['spec']} {how}: "
            if run["kept"] is None or run["new"] is None:
                listed.append(f"{words}diverged")
                continue
            self._own += ax.plot(run["kept"], run["new"], ms=17, zorder=5, **STAR)
            self._own.append(ax.annotate(letter, (run["kept"], run["new"]), (7, -14), zorder=6, **NOTE))
            within = run["kept"] >= limit and run["new"] >= target
            reached += within
            listed.append(f"{words}{run['kept']:.0%}, {number(run['new'], 'accuracy')}{'  ✓' if within else ''}")
        shares = [x for x, _ in self.means] + [run["kept"] for run in league if run["kept"] is not None]
        ax.set_xlim(min([0.45, *shares]) - 0.03, 1.03)
        front = [
            f"{place}  {self.dots[i]['name' if short else 'spec']}: {self.means[i][0]:.0%}, "
            + number(self.means[i][1], "accuracy")
            for place, i in enumerate(self.front[::-1], start=1)
        ]
        rows = ["No dot beats these on both axes (share kept, accuracy):", *front, "", "Your runs (✓: in the corner):"]
        if short:
            pairs = ["    ".join(front[i : i + short]) for i in range(0, len(front), short)]
            rows = ["No dot beats (share kept, accuracy):", *pairs, "Your runs (✓: in the corner):"]
        rows += listed[-(SHORT if short else LISTED) :] or ["none yet"]
        self._text.set_text("\n".join(rows))
        self._text.set_transform(self._words.transAxes if short == 1 else self._place)
        alt = f"{len(self.dots)} remedies, {len(self.front)} on the front; {named}. Your runs: {len(league)}, "
        alt += f"{reached} in the corner of {limit:.0%} kept and accuracy {number(target, 'accuracy')}."
        return self.figure, alt + (f" Newest: {listed[-1][3:]}." if listed else "")


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
