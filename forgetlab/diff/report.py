"""A diff as a folder: a page with its pictures, diff.json, and diff.md for a pull request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from forgetlab import plots
from forgetlab.diff import pictures, told
from forgetlab.diff.schema import AfterFound, Diff, ItemFound, PartFound, TaskFound
from forgetlab.experiments.report import STYLE, figure_html, put

SHOWN = 12  # items of a task in the page; diff.json has 200
CAPTIONS = {
    "loss": "How much worse each watched task is, with its 95 % interval over the test items. An interval that lies "
    "right of the line is a loss; the grey mark is the smallest true loss that four of five such tests would have "
    "shown.",
    "flips": "Items that were right before and are wrong after, and the reverse, as shares of all; hatched: as many as "
    "guessing alone would flip.",
    "parts": "How many times higher the perplexity is, by class of word and by place in the text, with 95 % intervals.",
    "curves": "The loss along the checkpoints, from before the fine-tune (step 0); bands: 95 % intervals.",
}
HOW_TO_READ = (
    "<b>Loss</b> is how much worse a score is after than before on the same test items: in points (0.02 is two of a "
    "hundred), or of a perplexity as a factor (×1.1: a tenth higher). Below zero, or ×1, it got better.",
    "<b>95 % interval</b>: where the loss on all such texts may lie, as far as these test items tell; texts of another "
    "kind can fare otherwise.",
    "<b>lost</b>: more was lost than is allowed (than nothing, where nothing is said), with 5 % chance of a false "
    "alarm; <b>fine</b>: no more was lost than is allowed, with 5 % chance of a miss; <b>not enough evidence</b>: "
    "neither can be said: score more items. A verdict asks one side only, so that the interval of a loss may just "
    "reach over the line.",
    "<b>Items lost and gained</b>: right before and wrong after, and the reverse. Of tags the items are entities, of "
    "perplexities passages, which only count as worse or better.",
    "<b>Calibration</b>: the mean gap between how sure a model is and how often it is right; 0 is best.",
)
MORE_STYLE = """
.verdict { padding: .5rem .8rem; border-left: .35rem solid var(--line); background: var(--soft); }
.lost { border-color: #bd1f01; } .fine { border-color: #3f90da; }
td.text { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
td.said { white-space: normal; min-width: 7rem; }
details { margin: .6rem 0; } summary { cursor: pointer; }
"""


def write(found: Diff, folder: str | Path) -> Path:
    """Write report.html, diff.json, diff.md and the pictures into a folder; returns the path of report.html.

    Raises ForgetlabError where `experiments.report.put` does.
    """
    figures = {
        "loss": pictures.loss_figure(found),
        "curves": pictures.curves_figure(found),
        "flips": pictures.flips_figure(found),
        "parts": pictures.parts_figure(found),
    }
    alt = pictures.alt_text(found)
    alts = {kind: alt if kind == "loss" else CAPTIONS[kind] for kind in figures}
    images = {kind: plots.png(figure, alts[kind]) for kind, figure in figures.items() if figure is not None}
    data = json.dumps(finite(found), indent=1, allow_nan=False)
    files = {f"{kind}.png": image for kind, image in images.items()} | {
        "diff.json": data.encode(),
        "diff.md": told.markdown(found).encode("utf-8", "replace"),
        "report.html": _page(found, images, alts).encode("utf-8", "replace"),
    }
    return put(files, folder) / "report.html"


def finite(value: Any) -> Any:
    """Plain values as JSON has them: None for what is no finite number."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [finite(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _page(found: Diff, images: Mapping[str, bytes], alts: Mapping[str, str]) -> str:
    title = escape(f"What the fine-tune cost {found['before']}")
    figures = "".join(figure_html(png, alts[kind], CAPTIONS[kind]) for kind, png in images.items())
    gate = ""
    if found["gate"]:
        gate = f'<p class="verdict {found["gate"].split()[0]}">Gate: <b>{told.GATES[found["gate"]]}.</b></p>'
    names = ", ".join(after["name"] for after in found["afters"])
    what = f"{found['before']} ({found['parameters']:,} weights) against {names}, on the same test items."
    notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    made = {**found["versions"], **found["machine"]}
    memory = f", {found['memory'] / 2**20:,.0f} MB at most" if found["memory"] else ""
    versions = ", ".join([f"forgetlab {found['forgetlab']}", *(f"{name} {value}" for name, value in made.items())])
    several = len(found["afters"]) > 1
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}{MORE_STYLE}</style></head>
<body><h1>{title}</h1>
<p>{escape(what)}</p>
{gate}
{_summary(found) if several else ""}
{"".join(_table(after, several) for after in found["afters"])}
{figures}
{"".join(_details(after, several) for after in found["afters"])}
{f"<h2>Notes</h2><ul>{notes}</ul>" if notes else ""}
<h2>How to read this</h2>
<ul>{"".join(f"<li>{line}</li>" for line in HOW_TO_READ)}</ul>
<h2>How it was made</h2><pre>{escape(found["command"] or "called from Python")}</pre>
<p>{escape(versions)}; {found["seconds"]:.0f} s{memory}. All numbers, and hashes of the data, are in
<code>diff.json</code>; <code>diff.md</code> is a table for a pull request.</p>
</body></html>
"""


def _summary(found: Diff) -> str:
    head, *rows = told.summary(found)
    lines = ["".join(f"<th scope=col>{escape(name)}</th>" for name in head)]
    for name, *cells in rows:
        lines.append(f"<th scope=row>{escape(name)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return f"<h2>Loss of each</h2>{_wide(lines)}"


def _table(after: AfterFound, several: bool) -> str:
    head = "".join(f"<th scope=col>{name}</th>" for name in told.HEAD)
    lines = [f"<tr>{head}</tr>"]
    for task in after["tasks"]:
        name, *cells = map(escape, told.row(task))
        facts = task["facts"]
        scored, of = facts.get("scored"), facts.get("of")
        small = f"<small>{scored:,} of {of:,} items</small>" if scored is not None and of is not None else ""
        lines.append(f"<tr><th scope=row>{name}{small}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    title = "<h2>Results</h2>"
    if several:
        title = f"<h2>{escape(after['name'])}{': ' + after['gate'] if after['gate'] else ''}</h2>"
    names = escape(", ".join(after["lent"]))
    lent = f"<p>Answered by BEFORE's, as it has none of its own: {names}.</p>" if names else ""
    said = "".join(f"<li>{escape(line)}</li>" for line in told.said(after))
    return f'{title}<div class="wide"><table>{"".join(lines)}</table></div><ul>{said}</ul>{lent}'


def _details(after: AfterFound, several: bool) -> str:
    of = f" in {escape(after['name'])}" if several else ""
    parts = []
    for task in after["tasks"]:
        body = _items(task["lost"], task, "lost") + _items(task["gained"], task, "gained")
        body += _parts(task["by_token_class"], "class of word") + _parts(task["by_position"], "place")
        body += _calibration(task)
        if body:
            lead = "open" if task["verdict"] == "lost" and task["role"] != "new" else ""
            parts.append(f"<details {lead}><summary><b>{escape(task['facts']['name'])}</b></summary>{body}</details>")
    text = f"<h2>What was lost{of}</h2>{''.join(parts)}" if parts else ""
    if after.get("where"):
        from forgetlab.diff.inside.shown import reach_html, where_html

        text += (
            f"<h2>Where it changed{of}</h2>"
            + where_html(after["where"])
            + (reach_html(after["reach"]) if after.get("reach") else "")
        )
    if after.get("repair"):
        from forgetlab.diff.repair.shown import repair_html

        text += f'<h2>Repair</h2><div class="wide">{repair_html(after["repair"])}</div>'
    return text


def _items(items: Sequence[ItemFound], task: TaskFound, which: str) -> str:
    if not items:
        return ""
    head = ["text", *(["right"] if items[0]["gold"] is not None else []), "before", "after"]
    rows = ["".join(f"<th scope=col>{name}</th>" for name in head)]
    for item in items[:SHOWN]:
        cells = [f'<td class="text">{escape(item["text"])}</td>']
        gold = [item["gold"]] if item["gold"] is not None else []
        cells += [f'<td class="said">{escape(cell)}</td>' for cell in (*gold, item["before"], item["after"])]
        rows.append("".join(cells))
    return f"<p>{_caption(task, which, min(SHOWN, len(items)))}</p>{_wide(rows)}"


def _caption(task: TaskFound, which: str, count: int) -> str:
    """What a table of items shows. which: "lost" or "gained"."""
    best, all_of = ("worst", task["lost_items"]) if which == "lost" else ("best", task["gained_items"])
    if task["counted"] == "entities":
        return f"sentences with {which} entities, the {best} first ({all_of:,} entities in all)"
    if task["flips"]:
        return f"{task['counted']} {which}, the {best} first ({all_of:,} in all)"
    better = "worse" if which == "lost" else "better"
    return f"{count} of {all_of:,} {task['counted']} that got {better}, the {best} first"


def _parts(parts: Sequence[PartFound], what: str) -> str:
    if not parts:
        return ""
    rows = [
        "".join(f"<th scope=col>{name}</th>" for name in (what, "tokens", "before", "after", "times", "95 % interval"))
    ]
    for part in parts:
        change = part["change"]
        cells = (
            f"{part['tokens']:,} ({part['share']:.0%})",
            plots.number(change["before"]),
            plots.number(change["after"]),
            told.amount(change["loss"], "ratio"),
            told.interval(change, "ratio"),
        )
        name = f"{escape(part['name'])}<small>{escape(part['rule'])}</small>"
        rows.append(f"<th scope=row>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in cells))
    return f"<p>Perplexity by {what}</p>{_wide(rows)}"


def _wide(rows: Sequence[str]) -> str:
    return f'<div class="wide"><table>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'


def _calibration(task: TaskFound) -> str:
    if not (found := task["calibration"]):
        return ""
    sides = []
    for when, one in found.items():
        gap = one["confidence"] - one["right"]
        how = "too sure" if gap > 0.005 else "not sure enough" if gap < -0.005 else "as sure as right, on the whole"
        sides.append(f"{when} {one['error']:.3f} (sure {one['confidence']:.0%}, right {one['right']:.0%}: {how})")
    return f"<p>Calibration error: {', '.join(sides)}.</p>"
