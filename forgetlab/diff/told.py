"""A diff in words: the table and the sentences on the terminal, and the table for a pull request."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from forgetlab.diff.order import step_of
from forgetlab.diff.schema import AfterFound, ChangeFound, Diff, TaskFound
from forgetlab.plots.style import number, wrapped

HEAD = ("task", "metric", "before", "after", "loss", "95 % interval", "lost", "gained", "verdict")
WIDTH = 120
GATES = {
    "fine": "fine: no task lost more than is allowed",
    "lost": "lost: a task lost more than is allowed",
    "not enough evidence": "not enough evidence: more may be lost than is allowed; score more test items",
}


def lines(found: Diff) -> list[str]:
    """The terminal's table, one row a task, and what it says in plain words."""
    text = [*_table(summary(found), 1), ""] if len(found["afters"]) > 1 else []
    for after in found["afters"]:
        text += [f"{found['before']} → {after['name']}", *_table([HEAD, *map(row, after["tasks"])]), ""]
        text += [part for line in said(after) for part in _filled(line)]
        text += _more(after)
        text.append("")
    if any(task["facts"].get("scale") == "ratio" for after in found["afters"] for task in after["tasks"]):
        text.append("lost, gained: items; of a perplexity the passages that got worse, better, by however little")
    if found["gate"]:
        text.append(f"gate: {GATES[found['gate']]}")
    text += [part for note in found["notes"] for part in _filled(f"note: {note}")]
    return text


def _more(after: AfterFound) -> list[str]:
    """What the opened model says, if it was asked for."""
    text = list[str]()
    if after.get("where"):
        from forgetlab.diff.inside.shown import reach_lines, where_lines

        text += where_lines(after["where"])
        text += [line for one in after.get("reach", []) for line in reach_lines(one)]
    if after.get("repair"):
        from forgetlab.diff.repair.shown import repair_lines

        text += repair_lines(after["repair"])
    return text


def summary(found: Diff) -> list[list[str]]:
    """Of several AFTERs a row each: the loss of every task, "?" where it cannot be told from none, and the gate."""
    tasks = found["afters"][0]["tasks"]
    rows = [["loss of", *(row(task)[0] for task in tasks), *(["gate"] if found["gate"] else [])]]
    for after in found["afters"]:
        cells = [_doubted(task) for task in after["tasks"]]
        rows.append([after["name"], *cells, *([after["gate"] or ""] if found["gate"] else [])])
    return rows


def _doubted(task: TaskFound) -> str:
    change = task["change"]
    sure = change["low"] is not None and change["high"] is not None and (change["low"] > 0 or change["high"] < 0)
    return amount(change["loss"], task["facts"].get("scale", "points")) + ("" if sure else "?")


def row(task: TaskFound) -> tuple[str, ...]:
    """A task's cells, under HEAD."""
    facts, change = task["facts"], task["change"]
    on = facts.get("scale", "points")
    name = facts["name"] if task["role"] != "new" else f"new: {facts['name']}"
    return (
        name,
        facts["metric"],
        number(change["before"], "ratio" if on == "ratio" else "points"),
        number(change["after"], "ratio" if on == "ratio" else "points"),
        amount(change["loss"], on),
        interval(change, on),
        str(task["lost_items"]) if change["low"] is not None else "–",
        str(task["gained_items"]) if change["low"] is not None else "–",
        verdict(task),
    )


def verdict(task: TaskFound) -> str:
    """A task's verdict, with what it was held against."""
    if task["allowed"] is None:
        return "better" if task["verdict"] == "fine" else task["verdict"]
    return f"{task['verdict']} (allowed {amount(task['allowed'], task['facts'].get('scale', 'points'))})"


def amount(loss: float | None, scale: str) -> str:
    """A loss as people read it: points of the score, or the factor of a perplexity.

    >>> amount(0.0123, "points"), amount(0.3, "ratio")
    ('0.012', '×1.35')
    """
    if loss is None or math.isnan(loss):
        return "–"
    if math.isinf(loss):
        return "without end" if loss > 0 else "×0" if scale == "ratio" else "−without end"
    if scale == "ratio":
        factor = math.exp(min(loss, 700.0))
        if factor < 0.01:
            return f"×1/{1 / factor:,.0f}" if factor else "×0"
        return f"×{factor:.3f}" if 0.98 < factor < 1.02 else f"×{number(factor)}"
    return f"{round(loss, 3) + 0:.3f}".replace("-", "−")


def interval(change: ChangeFound, scale: str) -> str:
    """The 95 % interval of a loss."""
    low, high = change["low"], change["high"]
    return "–" if low is None or high is None else f"{amount(low, scale)} to {amount(high, scale)}"


def said(after: AfterFound) -> list[str]:
    """A sentence or two on each task, the most certain loss first."""
    order = {"lost": 0, "not enough evidence": 1, "fine": 2}
    return [sentence(task) for task in sorted(after["tasks"], key=lambda task: order[task["verdict"]])]


def sentence(task: TaskFound) -> str:
    """What a task's numbers say, in plain words."""
    facts, change, flips = task["facts"], task["change"], task["flips"]
    on, name, metric = facts.get("scale", "points"), facts["name"], facts["metric"]
    if change["low"] is None:
        return (
            f"{name}: {metric} went from {number(change['before'], on)} to {number(change['after'], on)}; it is no sum "
            "over test items, so that nobody can say how sure that is."
        )
    loss = amount(change["loss"], on)
    told = f"{name}: {verdict(task)}. "
    if on == "ratio":
        told += f"Its perplexity became {loss} times what it was ({interval(change, on)})".replace(
            "became ×", "became "
        )
    else:
        lower = ((change["loss"] or 0.0) >= 0) == facts.get("higher_is_better", True)
        told += f"Its {metric} is {loss.lstrip('−')} {'lower' if lower else 'higher'} ({_ends(change)})"
    if flips and (flips["lost"] or flips["gained"]):
        n = sum(flips[name] for name in ("both", "lost", "gained", "neither"))
        told += f"; {flips['lost']} of {n} {task['counted']} lost, {flips['gained']} gained"
        if flips["lost_by_guessing"] >= 1:
            told += f" (guessing alone flips up to {flips['lost_by_guessing']:.0f} and "
            told += f"{flips['gained_by_guessing']:.0f})"
    told += "."
    smallest = math.inf if change["smallest"] is None else change["smallest"]
    if task["verdict"] == "not enough evidence":
        told += " It may be more than is allowed, or less." if task["allowed"] is not None else ""
        told += " The smallest loss that this test could have shown is "
        told += "larger than any: it has too few items." if math.isinf(smallest) else f"{amount(smallest, on)}."
    return told


def _ends(change: ChangeFound) -> str:
    """The interval of a change, counted the way that it went."""
    low, high = change["low"] or 0.0, change["high"] or 0.0
    if (change["loss"] or 0.0) < 0:
        low, high = -high, -low
    return f"{amount(low, 'points')} to {amount(high, 'points')}"


def markdown(found: Diff) -> str:
    """A table fit for a pull request: the verdict first."""
    text = [f"### What the fine-tune cost {found['before']}", ""]
    if found["gate"]:
        text += [f"**{GATES[found['gate']].capitalize()}.**", ""]
    if len(found["afters"]) > 1:
        head, *rest = summary(found)
        text += [_row([_cell(name) for name in head]), _row(["---", *["---:"] * (len(head) - 1)])]
        text += [_row([_cell(cell) for cell in cells]) for cells in rest] + [""]
    for after in found["afters"]:
        if len(found["afters"]) > 1:
            text += [f"#### {_cell(after['name'])}" + (f": {after['gate']}" if after["gate"] else ""), ""]
        text += [_row(HEAD), _row(["---"] * 2 + ["---:"] * 6 + ["---"])]
        text += [_row([_cell(cell) for cell in row(task)]) for task in after["tasks"]]
        text += ["", *(f"- {_cell(line)}" for line in said(after)), ""]
    text += [
        f"<details><summary>Notes</summary>\n\n{chr(10).join('- ' + _cell(n) for n in found['notes'])}\n\n</details>",
        "",
    ]
    text.append(
        "loss: how much worse, in points of the score or as a factor of a perplexity, with its 95 % interval over the "
        "test items; lost, gained: items right before and wrong after, and the reverse. "
        f"forgetlab {found['forgetlab']}."
    )
    return "\n".join(text) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _table(rows: Sequence[Sequence[str]], words: int = 2) -> list[str]:
    """Aligned columns; numbers, which stand to the right, begin after the first `words` columns."""
    split = [[wrapped(cell, 24) if i == 0 else [cell] for i, cell in enumerate(cells)] for cells in rows]
    widths = [max(len(line) for cells in split for line in cells[i]) for i in range(len(rows[0]))]
    text = []
    for cells in split:
        for k in range(max(map(len, cells))):
            parts = [cell[k] if k < len(cell) else "" for cell in cells]
            text.append(
                "  ".join(
                    part.rjust(n) if words <= i <= 7 else part.ljust(n)
                    for i, (part, n) in enumerate(zip(parts, widths, strict=True))
                ).rstrip()
            )
    height = max(map(len, split[0]))
    return [*text[:height], "-" * max(map(len, text)), *text[height:]]


def _filled(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def along(found: Diff) -> list[int] | None:
    """The steps of the AFTERs, where they are checkpoints of a run."""
    steps = [step_of(after["name"]) for after in found["afters"]]
    return [step for step in steps if step is not None] if len(steps) > 1 and None not in steps else None
