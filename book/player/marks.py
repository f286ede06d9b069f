"""The artists of a pair of axes as marks: plain values that are drawn again in a page, each of them

{"kind": "line" | "dots", "label", "x", "y", "color", "dash", "width", "marker", "filled", "size", "opacity"},
{"kind": "rule", "axis", "at"} (a line across the whole panel), {"kind": "rects", "x1", "x2", "y1", "y2"} (bars, cells),
{"kind": "area", "rings"}, {"kind": "arrow", "x1", "y1", "x2", "y2"} or {"kind": "text", "x", "y", "dx", "dy", "text"}.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.container import BarContainer
from matplotlib.contour import ContourSet
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Annotation, Text

Mark = dict[str, Any]
DIGITS = 4
CELLS = 2500  # of an image, at most
ANCHORS = {"left": "start", "center": "middle", "right": "end"}
BASES = {"top": "top", "center": "middle", "center_baseline": "middle", "bottom": "bottom", "baseline": "bottom"}
CAPS = ("_", "|")  # of error bars
GAP = 4  # px, in place of a blank before a word
LARGE = 13  # points from which a word counts as a large one


def rounded(value: Any) -> float | int | None:
    """Cut to DIGITS significant digits; None for what is no finite number."""
    number = float(value)
    if not math.isfinite(number):
        return None
    number = float(f"{number:.{DIGITS}g}")
    return int(number) if number.is_integer() else number


def lines(ax: Axes) -> Iterator[Mark]:
    """Lines and dots, the ones further back first."""
    for line in sorted(ax.lines, key=lambda line: line.get_zorder()):
        if not line.get_visible() or line.get_marker() in CAPS:
            continue
        look = line_look(line)
        if (transform := line.get_transform()) == ax.get_yaxis_transform("grid"):
            yield {"kind": "rule", "axis": "y", "at": rounded(np.ravel(line.get_ydata())[0]), **look}
        elif transform == ax.get_xaxis_transform("grid"):
            yield {"kind": "rule", "axis": "x", "at": rounded(np.ravel(line.get_xdata())[0]), **look}
        else:
            x, y = ([rounded(value) for value in np.asarray(data, float)] for data in line.get_data())
            if any(value is not None for value in y):
                label = _label(line)
                kind = "dots" if line.get_linestyle() in ("None", "none", "", " ") else "line"
                yield {"kind": kind, "label": label, "x": x, "y": y, **look}


def line_look(line: Line2D) -> dict[str, Any]:
    """What a line, or a legend's sample of it, looks like."""
    color = to_rgba(line.get_color())
    look: dict[str, Any] = {"color": to_hex(color)}
    if (opacity := color[3] if line.get_alpha() is None else line.get_alpha()) < 1:
        look["opacity"] = rounded(opacity)
    has_line = line.get_linestyle() not in ("None", "none", "", " ")
    if has_line:
        look["width"] = rounded(line.get_linewidth())
        _, dashes = line._unscaled_dash_pattern  # in widths of the line
        if dashes:
            look["dash"] = " ".join(f"{rounded(width * line.get_linewidth())}" for width in dashes)
    marker = line.get_marker()
    if marker not in ("None", "none", "", " ", None) and line.get_markersize() > 0:
        face = line.get_markerfacecolor()
        hollow = isinstance(face, str) and face in ("none", "white")
        look |= {"marker": str(marker), "size": rounded(line.get_markersize()), "filled": not hollow}
        edge = to_hex(line.get_markeredgecolor())
        if edge != look["color"]:
            look["edge"] = edge
    return look


def bars(ax: Axes) -> Iterator[Mark]:
    """Bars, each set of them as one mark; spans and frames; other patches as areas."""
    sets = [container for container in ax.containers if isinstance(container, BarContainer)]
    others = [[patch] for patch in ax.patches if not any(patch in one.patches for one in sets)]
    for group in sorted([*others, *(list(one.patches) for one in sets)], key=lambda group: group[0].get_zorder()):
        shown: list[Any] = [patch for patch in group if patch.get_visible()]
        if not shown:
            continue
        named = [_label(one) for one in sets if list(one.patches) == group]
        label = named[0] if named else _label(shown[0])
        if all(isinstance(patch, Rectangle) for patch in shown):
            yield {"kind": "rects", "label": label, **_boxes(ax, shown), **patch_look(shown)}
        else:
            rings = [_ring(_corners(ax, patch)) for patch in shown]
            yield {"kind": "area", "label": label, "rings": rings, **patch_look(shown)}


def patch_look(patches: list[Any]) -> dict[str, Any]:
    """Colours of patches, one or one for each; "hatch" where they have one."""
    faces = [to_rgba(patch.get_facecolor()) for patch in patches]
    colors = [to_hex(face) for face in faces]
    look: dict[str, Any] = {"color": colors[0] if len(set(colors)) == 1 else colors}
    if not patches[0].get_fill() or faces[0][3] == 0:
        look |= {"hollow": True, "color": to_hex(patches[0].get_edgecolor()), "width": patches[0].get_linewidth()}
    elif faces[0][3] < 1:
        look["opacity"] = rounded(faces[0][3])
    hatches = [patch.get_hatch() or "" for patch in patches]
    if any(hatches):
        look["hatch"] = hatches[0] if len(set(hatches)) == 1 else hatches
    return look


def legend_look(handle: Any) -> dict[str, Any]:
    """The look of a legend's sample."""
    if isinstance(handle, Line2D):
        return line_look(handle)
    if isinstance(handle, Patch):
        return {"box": True, **patch_look([handle])}
    return {"box": True, "color": to_hex(handle.get_facecolor()[0])}


def texts(ax: Axes) -> Iterator[Mark]:
    """Words and arrows."""
    for text in ax.texts:
        if not text.get_visible():
            continue
        if isinstance(text, Annotation) and (arrow := _arrow(text)) is not None:
            yield arrow
        if not text.get_text().strip():
            continue
        mark: Mark = {
            "kind": "text",
            **_place(ax, text),
            "text": text.get_text().strip(),
            "color": to_hex(text.get_color()),
        }
        mark["text"] = mark["text"].replace(r"\$", "$")
        mark |= {"anchor": ANCHORS[text.get_ha()], "base": BASES[text.get_va()]}
        if text.get_text().startswith(" "):
            mark["dx"] = GAP
        if text.get_path_effects():
            mark["halo"] = True
        if text.get_weight() == "bold":
            mark["bold"] = True
        if text.get_fontsize() > LARGE:
            mark["large"] = True
        yield mark


def _place(ax: Axes, text: Text) -> dict[str, Any]:
    """Where words stand, in the axes' own numbers and px from there."""
    if not isinstance(text, Annotation):
        x, y = _in_data(ax, text.get_transform(), [text.get_position()])[0]
        return {"x": rounded(x), "y": rounded(y)}
    coords = text.xycoords if isinstance(text.xycoords, tuple) else (text.xycoords, text.xycoords)
    fractions = _in_data(ax, ax.transAxes, [text.xy])[0]
    x, y = (own if how == "data" else share for own, share, how in zip(text.xy, fractions, coords, strict=True))
    if text.anncoords == "offset points":
        right, up = text.xyann
        return {"x": rounded(x), "y": rounded(y), "dx": rounded(right), "dy": rounded(-up)}
    return {"x": rounded(text.xyann[0]), "y": rounded(text.xyann[1])}


def _arrow(text: Annotation) -> Mark | None:
    patch: Any = text.arrow_patch
    if patch is None or not patch.get_visible() or text.anncoords == "offset points":
        return None
    (x2, y2), (x1, y1) = text.xy, text.xyann
    ends = {name: rounded(value) for name, value in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))}
    look: dict[str, Any] = {"color": to_hex(patch.get_edgecolor()), "width": rounded(patch.get_linewidth())}
    _, dashes = patch._unscaled_dash_pattern
    if dashes:
        look["dash"] = " ".join(f"{rounded(width * patch.get_linewidth())}" for width in dashes)
    return {"kind": "arrow", **ends, **look}


def collections(ax: Axes) -> Iterator[Mark]:
    """Contours, scattered dots, error bars, filled areas."""
    for one in ax.collections:
        if one.get_visible():
            yield from _collection(ax, one)


def _collection(ax: Axes, one: Collection) -> Iterator[Mark]:
    if isinstance(one, ContourSet):
        yield from _contours(one)
    elif isinstance(one, PathCollection):
        x, y = np.asarray(one.get_offsets(), float).T
        sizes = np.sqrt(one.get_sizes())
        look = {"color": to_hex(one.get_facecolor()[0]), "marker": "o", "filled": True, "size": rounded(sizes[0])}
        yield {"kind": "dots", "label": _label(one), "x": list(map(rounded, x)), "y": list(map(rounded, y)), **look}
    elif isinstance(one, LineCollection):
        yield {
            "kind": "line",
            "label": "",
            **_joined(one.get_segments()),
            "color": to_hex(one.get_color()[0]),
            "width": 1,
        }
    elif isinstance(one, PolyCollection):
        rings = [_ring(path.vertices) for path in one.get_paths()]
        color = to_rgba(one.get_facecolor()[0])
        yield {
            "kind": "area",
            "label": _label(one),
            "rings": rings,
            "color": to_hex(color),
            "opacity": rounded(color[3]),
        }


def _contours(one: ContourSet) -> Iterator[Mark]:
    if not one.filled:
        for path, color in zip(one.get_paths(), one.get_edgecolor(), strict=False):
            segments = [ring for ring in path.to_polygons(closed_only=False) if len(ring) > 1]
            if segments:
                yield {
                    "kind": "line",
                    "label": "",
                    **_joined(segments),
                    "color": to_hex(color),
                    "width": 1,
                    "dash": "1 2",
                }
        return
    colors = [to_hex(color) for color in one.get_facecolor()]
    ramp = {"colors": colors, "low": rounded(one.levels[0]), "high": rounded(one.levels[-1])}
    for path, color in zip(one.get_paths(), colors, strict=False):
        rings = [_ring(ring) for ring in path.to_polygons() if len(ring) > 2]
        if rings:
            yield {"kind": "area", "label": "", "rings": rings, "color": color, "ramp": ramp}


def images(ax: Axes) -> Iterator[Mark]:
    """An image of few cells, as rectangles."""
    for image in ax.images:
        values = np.ma.masked_invalid(np.asarray(image.get_array(), float))
        if values.ndim != 2 or values.size > CELLS:
            raise ValueError(f"an image of {values.shape} cells is not drawn in a page")
        left, right, bottom, top = image.get_extent()
        across, up = np.linspace(left, right, values.shape[1] + 1), np.linspace(top, bottom, values.shape[0] + 1)
        cells = [(i, j) for i, j in np.ndindex(values.shape) if values[i, j] is not np.ma.masked]
        yield {
            "kind": "rects",
            "image": True,
            "label": "",
            "x1": [rounded(across[j]) for _, j in cells],
            "x2": [rounded(across[j + 1]) for _, j in cells],
            "y1": [rounded(up[i]) for i, _ in cells],
            "y2": [rounded(up[i + 1]) for i, _ in cells],
            "color": [to_hex(image.cmap(image.norm(values[i, j]))) for i, j in cells],
        }


def _boxes(ax: Axes, patches: list[Any]) -> dict[str, list[Any]]:
    corners = [_corners(ax, patch) for patch in patches]
    ends = [(points.min(axis=0), points.max(axis=0)) for points in corners]
    return {
        "x1": [rounded(low[0]) for low, _ in ends],
        "x2": [rounded(high[0]) for _, high in ends],
        "y1": [rounded(low[1]) for low, _ in ends],
        "y2": [rounded(high[1]) for _, high in ends],
    }


def _corners(ax: Axes, patch: Any) -> np.ndarray:
    return _in_data(ax, patch.get_data_transform(), patch.get_patch_transform().transform(patch.get_path().vertices))


def _in_data(ax: Axes, transform: Any, points: Any) -> np.ndarray:
    """Points of a transform in the axes' own numbers."""
    points = np.asarray(points, float)
    if transform == ax.transData:
        return points
    return np.asarray(ax.transData.inverted().transform(transform.transform(points)))


def _ring(points: Any) -> list[list[Any]]:
    return [[rounded(x), rounded(y)] for x, y in points]


def _joined(segments: Iterable[Any]) -> dict[str, list[Any]]:
    """Several lines as one, with gaps between them."""
    x: list[Any] = []
    y: list[Any] = []
    for segment in segments:
        x += [*map(rounded, np.asarray(segment, float)[:, 0]), None]
        y += [*map(rounded, np.asarray(segment, float)[:, 1]), None]
    return {"x": x[:-1], "y": y[:-1]}


def _label(artist: Any) -> str:
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else label.replace(r"\$", "$")
