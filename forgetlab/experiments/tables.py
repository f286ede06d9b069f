"""The tables of a comparison: plain text for the terminal, HTML for the report."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import zip_longest

from forgetlab.metrics.retention import scale
from forgetlab.metrics.schema import Results, SummaryRow, TaskFacts
from forgetlab.plots.style import number, wrapped

LEGEND = {
    "±": "±: standard deviation over seeds / standard error that comes from the choice of the test items",
    "?": "?: cannot be told from no change",
}


def table(results: Results) -> str:
    """The summary as aligned plain text, one row a method, 120 columns wide with up to three watched tasks.

    Where all methods start alike, the scores before stand in a row of their own.
    """
    tasks, rows = results["tasks"], results["summary"]
    columns, start = [], ["before"]
    for i, task in enumerate(tasks):
        cells = [_cell(task, row, change=i > 0) for row in rows]
        alike = len({before for before, *_ in cells}) == 1
        start.append(cells[0][0] if alike else "")
        shown = [("", "", *cell[2:]) if alike else cell for cell in cells]
        sizes = [max(map(len, parts)) for parts in zip(*shown, strict=True)]
        lines = [" ".join(p.rjust(n) for p, n in zip(cell, sizes, strict=True) if n) for cell in shown]
        name = wrapped(task["name"] if i else f"new: {task['name']}", max(18, len(lines[0])))
        columns.append(([*name, task["metric"]], lines))
    columns.append((["ms/step"], [_milliseconds(row).rjust(7) for row in rows]))
    used = sum(2 + max(map(len, [*head, *lines])) for head, lines in columns)
    labels = [wrapped(_label(row), max(16, 120 - used)) for row in rows]
    height = max(len(head) for head, _ in columns)
    grid = [list(line) for line in zip_longest(["method"], *(head for head, _ in columns), fillvalue="")]
    grid += [start] if any(start[1:]) else []
    for k, label in enumerate(labels):
        grid.append([label[0], *(lines[k] for _, lines in columns)])
        grid += [[more] for more in label[1:]]
    widths = [max(map(len, column)) for column in zip_longest(*grid, fillvalue="")]
    text = ["  ".join(part.ljust(n) for part, n in zip(line, widths, strict=False)).rstrip() for line in grid]
    legend = [words for mark, words in LEGEND.items() if any(mark in line for line in text[height:])]
    return "\n".join([*text[:height], "-" * max(map(len, text)), *text[height:], *legend])


def html_table(results: Results) -> str:
    tasks, rows = results["tasks"], results["summary"]
    lines = ["<th scope=col>method</th>"]
    for i, task in enumerate(tasks):
        role = f"{'watched' if i else 'new'}, {task['metric']}"
        role += f", {task['scored']:,} of {task['of']:,} items" if task.get("scored") else ""
        lines[0] += f"<th scope=col>{escape(task['name'])}<small>{escape(role)}</small></th>"
    lines[0] += "<th scope=col>ms/step</th>"
    for row in rows:
        label = escape(_label(row)).replace("+", "<wbr>+").replace(",", "<wbr>,")  # where a line may break
        line = f"<th scope=row>{label}</th>"
        for i, task in enumerate(tasks):
            *score, change = _cell(task, row, change=i > 0)
            shares = _shares(task, row)
            line += f"<td>{' '.join(filter(None, score))}{f'<b>{change}</b>' if change else ''}"
            line += f"<small>{shares}</small></td>" if shares else "</td>"
        lines.append(f"{line}<td>{_milliseconds(row)}</td>")
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _cell(task: TaskFacts, row: SummaryRow, change: bool) -> tuple[str, str, str, str, str]:
    """(before, "→", after, ±, change) as text; what is not known or not wanted is empty. "?": perhaps no change."""
    on, score = scale(task), row["tasks"][task["name"]]
    if "diverged" in row["status"]:  # weights that are nan still give an accuracy, which means nothing
        return number(score["before"], on), "→", "–", "", ""
    spread, error, changed = score["spread"], score.get("error"), score["change"]
    form = max(spread or 0, error or 0)
    parts = [number(value, "points" if form < 10 else on) for value in (spread, error)]
    shown = "" if spread is None and error is None else f"±{parts[0]}" + ("" if error is None else f"/{parts[1]}")
    told = ""
    if change and changed is not None:
        sign = "×" if on == "ratio" else "+" if changed >= 0.005 else ""
        told = sign + number(changed, on) + ("?" if score.get("told") is False else "")
    return number(score["before"], on), "→", number(score["after"], on), shown, told


def _shares(task: TaskFacts, row: SummaryRow) -> str:
    """What is kept of a watched task, with the plain ratio after / before beside it, or learned of the new one."""
    score = row["tasks"][task["name"]]
    if "diverged" in row["status"] or score["after"] is None or not ({"kept", "learned"} & score.keys()):
        return ""
    if "learned" in score:
        return f"learns {number(score['learned'], 'points')}"
    told = "nothing to lose" if score["kept"] is None else f"keeps {100 * score['kept']:.0f} %"
    if scale(task) == "ratio" or not score["before"]:  # the change is that ratio
        return told
    return f"{told}; after / before ×{number(score['after'] / score['before'])}"


def html_verdicts(results: Results) -> str:
    """Each remedy against plain fine-tuning as an HTML table; "" where there is nothing to compare."""
    if not (rows := results.get("verdicts")):
        return ""
    head = "".join(f"<th scope=col>{word}</th>" for word in ("method", "verdict", "both shares", "kept", "learned"))
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = "".join(f"<td>{_interval(ends)}</td>" for ends in (row["balance"], row["kept"], row["new"]))
        lines.append(f"<tr><th scope=row>{escape(row['methods'])}</th><td>{row['verdict']}</td>{cells}</tr>")
    return (
        "<h2>Against plain fine-tuning</h2><p>Differences of shares over the same seeds, with their 95 % interval; the "
        'verdict is that of the mean of both shares.</p><div class="wide"><table>' + "\n".join(lines) + "</table></div>"
    )


def _interval(ends: Sequence[float | None]) -> str:
    if ends[0] is None:
        return "–"
    middle, low, high = (None if end is None else f"{end:+.2f}".replace("-", "−") for end in ends)
    return f"{middle} ({low} to {high})" if low and high else f"{middle}"


def _label(row: SummaryRow) -> str:
    return row["method"] if row["status"] == ["done"] else f"{row['method']} ({', '.join(row['status'])})"


def _milliseconds(row: SummaryRow) -> str:
    return "–" if row["seconds_per_step"] is None else number(row["seconds_per_step"] * 1000)
