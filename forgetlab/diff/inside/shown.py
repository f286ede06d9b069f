"""What `where` and `reach` found, as lines for a terminal and as parts of a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from forgetlab import plots
from forgetlab.diff.inside.reach import ReachFound
from forgetlab.diff.inside.where import WhereFound
from forgetlab.experiments.report import figure_html
from forgetlab.plots import inside
from forgetlab.plots.style import number

MEANING = {
    "unreadable": "still in the model, only its readout no longer reaches it",
    "overwritten": "in part or whole it is no longer in the features",
    "cannot be told": "neither can be shown",
}
WIDTH = 9  # of a column


def where_lines(found: WhereFound) -> list[str]:
    """The table of drift, then CKA, probes and outputs, a line each."""
    columns, cells = inside.drift_cells(found)
    lines = ["where: how far the weights moved, % of their norm before"]
    heads = [inside.head(column).split() for column in columns]
    high = max(map(len, heads))
    lines += [
        f"{'':<18}" + "".join(f"{(head[i] if i < len(head) else ''):>{WIDTH}}" for head in heads) for i in range(high)
    ]
    for layer, row in zip(found["layers"], cells.tolist(), strict=True):
        words = ["" if value != value else inside.percent(value) for value in row]
        lines.append((f"{layer:<18}" + "".join(f"{word:>{WIDTH}}" for word in words)).rstrip())
    if found["cka"]:
        lines += ["", f"{'by depth':<44}{_row(['emb.', *map(str, range(len(found['depths']) - 1))])}"]
    for name, cka in found["cka"].items():
        lines.append(f"{f'{name}: CKA with before':<44}{_row([number(v, 'share') for v in cka])}")
        if probes := found["probes"].get(name):
            own = {"before": probes["before"], "fitted before": probes["frozen"], "fitted anew": probes["refitted"]}
            lines += [f"{f'  probe, {what}':<44}{_row([number(v, 'share') for v in by])}" for what, by in own.items()]
    for name, shift in found["shift"].items():
        lines.append(
            f"outputs on texts of {name}: KL(before‖after) {number(shift['kl'])} nats, entropy "
            f"{number(shift['entropy_before'])} → {number(shift['entropy_after'])} nats"
        )
    return [*lines, *found["notes"]]


def where_html(found: WhereFound) -> str:
    """The heat map and the curves, each with its words, and the outputs."""
    parts = [_figure(inside.drift_map(found), inside.drift_words(found), "How far each kind of matrix moved.")]
    if found["cka"]:
        caption = (
            "What the layers' features still hold. A probe that was fitted before and fails now, where one fitted anew "
            "succeeds, says that the features turned, not that they are gone."
        )
        parts.append(_figure(inside.by_depth(found), inside.depth_words(found), caption))
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{number(shift['kl'])}</td><td>{number(shift['entropy_before'])}</td>"
        f"<td>{number(shift['entropy_after'])}</td></tr>"
        for name, shift in found["shift"].items()
    )
    if rows:
        top = "<tr><th>outputs on</th><th>KL(before‖after), nats</th><th>entropy before</th><th>after</th></tr>"
        parts.append(f'<div class="wide"><table>{top}{rows}</table></div>')
    notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    return "".join(parts) + (f"<ul>{notes}</ul>" if notes else "")


def reach_lines(found: ReachFound) -> list[str]:
    """The verdict on a task and its evidence."""
    lines = [f"{found['task']}: {found['verdict']} ({MEANING[found['verdict']]}): {found['why']}"]
    rows = _evidence(found)
    width = max((len(words) for words, _ in rows), default=0)
    return [*lines, *(f"  {words:<{width}}  {value}" for words, value in rows)]


def reach_html(founds: Sequence[ReachFound]) -> str:
    """A table of the verdicts, the evidence below each."""
    parts = []
    for found in founds:
        rows = "".join(
            f"<tr><td>{escape(words)}</td><td>{escape(value)}</td></tr>" for words, value in _evidence(found)
        )
        parts.append(
            f"<h3>{escape(found['task'])}: {found['verdict']}</h3><p>{escape(MEANING[found['verdict']].capitalize())}: "
            f'{escape(found["why"])}.</p><div class="wide"><table>{rows}</table></div>'
        )
    return "".join(parts)


def _evidence(found: ReachFound) -> list[tuple[str, str]]:
    """(what, its value) of each piece."""
    kind = found["scale"]
    if found["before"] is None:
        return []
    rows = [(f"{found['metric']} before → after", f"{number(found['before'], kind)} → {number(found['after'], kind)}")]
    for what, scores, share in (
        ("readout fitted anew", found["refit"], found["recovered"]),
        (f"after {found['steps']} steps of relearning", found["relearned"], found["savings"]),
    ):
        if scores is not None:
            rows.append((what, ", ".join(f"{who} {number(value, kind)}" for who, value in scores.items())))
        if share is not None:
            told = f"{_percent(share[0])} ({_percent(share[1])} to {_percent(share[2])})"
            rows.append(("  of the loss it brings back", told))
    if back := found["put_back"]:
        most = max(back, key=lambda one: one["restored"])
        rows.append(
            (
                "BEFORE's weights put back in one layer",
                "; ".join(f"{b['layer']} {number(b['alone'], kind)}" for b in back),
            )
        )
        rows.append(("in all layers up to", "; ".join(f"{b['layer']} {number(b['up_to'], kind)}" for b in back)))
        rows.append(("the layer that restores most", f"{most['layer']}, {_percent(most['restored'])} of the loss"))
    return rows


def _percent(share: float) -> str:
    return f"{round(100 * share) + 0:.0f} %".replace("-", "−")


def _row(words: Sequence[str]) -> str:
    return "".join(f"{word:>6}" for word in words)


def _figure(figure: Figure, alt: str, caption: str) -> str:
    return figure_html(plots.png(figure, alt), alt, escape(caption))
