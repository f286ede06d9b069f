"""The numbers of a drawing as HTML tables, for a page without scripts; numbers.js has the same for a moved slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from forgetlab.plots.style import FAINT, INK

FEW = 40  # points of a line that are listed


def table(drawing: Mapping[str, Any]) -> str:
    """Every panel's: a row for each place across, a column for each line; what bars, images and words say."""
    return "".join(_panel(panel) for panel in drawing["panels"])


def _panel(panel: Mapping[str, Any]) -> str:
    if "lines" in panel:
        return "".join(f"<p>{escape(' '.join(word['text'] for word in row))}</p>" for row in panel["lines"])
    words = [part for part in (panel["title"].split("\n")[0], panel["y"]["label"]) if part]
    caption, marks = ", ".join(words), panel["marks"]
    if any(mark.get("image") for mark in marks):
        return _cells(panel, caption)
    boxes = [m for m in marks if m["kind"] == "rects" and "hollow" not in m and len(m["x1"]) > 1]
    lines = [
        m for m in marks if m["kind"] in ("line", "dots") and m["color"] not in (INK, FAINT) and len(m["x"]) <= FEW
    ]
    return (_bars(panel, caption, boxes) if boxes else "") + (_curves(panel, caption, lines) if lines else "")


def _curves(panel: Mapping[str, Any], caption: str, lines: Sequence[Mapping[str, Any]]) -> str:
    head = [panel["x"]["label"].split("\n")[0] or "x", *(line["label"] or panel["y"]["label"] or "y" for line in lines)]
    rows = []
    for x in sorted({x for line in lines for x in line["x"] if x is not None}):
        values = [[y for own, y in zip(line["x"], line["y"], strict=True) if own == x] for line in lines]
        rows.append([_named(x, panel["x"]), *(", ".join(map(_told, own)) for own in values)])
    return _table(caption, head, rows)


def _bars(panel: Mapping[str, Any], caption: str, sets: Sequence[Mapping[str, Any]]) -> str:
    """Bars lie along the axis that names them; their length is from 0, to either side."""
    along, up = ("x", "y") if "ticks" in panel["y"] else ("y", "x")
    head = ["", *(one["label"] or panel[along]["label"].split("\n")[0] or "value" for one in sets)]
    rows = []
    for i in range(len(sets[0]["x1"])):
        place = (sets[0][f"{up}1"][i] + sets[0][f"{up}2"][i]) / 2
        rows.append(
            [_named(place, panel[up]), *(_told(max(one[f"{along}1"][i], one[f"{along}2"][i], key=abs)) for one in sets)]
        )
    return _table(caption, head, rows)


def _cells(panel: Mapping[str, Any], caption: str) -> str:
    said = {(mark["x"], mark["y"]): mark["text"] for mark in panel["marks"] if mark["kind"] == "text"}
    across, up = panel["x"].get("ticks", []), panel["y"].get("ticks", [])
    rows = [[name, *(said.get((x, y), "") for x, _ in across)] for y, name in up]
    return _table(caption, ["", *(name for _, name in across)], rows)


def _named(place: float, axis: Mapping[str, Any]) -> str:
    return next((word for at, word in axis.get("ticks", ()) if at == round(place)), _told(place))


def _told(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for name, *cells in rows
    )
    return f"<table><caption>{escape(caption)}</caption><tr>{first}</tr>{body}</table>"
