"""The page that trains in the reader's tab, as one file without a network: `python -m book.build dist/book`."""

from __future__ import annotations

import base64
import io
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from book import texts as held
from book.program import DEFAULTS, Program, Settings, compiled, has_compiler
from forgetlab.labs.kit.curves import Curves, Panel
from forgetlab.plots.style import number

HERE = Path(__file__).parent
NAME = "watch-it-forget.html"
PANELS = (
    Panel("accuracy", "new: reviews", "accuracy", limits=(0, 1.04)),
    Panel("perplexity", "old: general text", "perplexity", log=True),
    Panel("f1", "old: names", "entity F1", limits=(0, 1.04)),
    Panel("drift", "weights moved", "distance"),
)
SCALES = {"perplexity": "ratio", "drift": "ratio"}
STILL: dict[str, Settings] = {"no pull": {}, "EWC, λ = 100": {"method": "EWC"}}


def page(folder: Path, still: Mapping[str, Settings] = STILL) -> str:
    """The page. folder: for the compiled program. still: the recorded runs; the page opens on the first."""
    model, tasks = held.opened()
    found = held.sets(model, tasks)
    sizes, data = held.sizes(model, tasks, found), held.packed(found)
    weights = b"".join(p.numpy().tobytes() for p in held.parameters(model, tasks).values())
    program = Program(compiled(folder, sizes, wasm=False), weights, data)
    runs = {name: [*program.run(settings)] for name, settings in still.items()}
    facts = {"opening": DEFAULTS, "floor": tasks[held.TEXT].floor, "recorded": next(iter(runs.values()))}
    parts = {
        "style": _read("page.css"),
        "still_words": escape(words(runs)),
        "still_picture": picture(runs),
        "still_table": table(runs),
        "weights": f"{len(weights) // 4:,}",
        "texts": f"{sum(map(len, found)):,}",
        "lines": str(sum(len(_read(path.name).splitlines()) for path in HERE.glob("*.[ch]"))),
        "samples": str(DEFAULTS["samples"]),
        "facts": json.dumps(facts, allow_nan=False),
        "program": _base64(compiled(folder, sizes, wasm=True).read_bytes()),
        "weights_base64": _base64(weights),
        "texts_base64": _base64(data),
        "worker": _read("worker.js"),
        "script": _read("page.js"),
    }
    whole = _read("page.html")
    for name, part in parts.items():
        whole = whole.replace(f"{{{{{name}}}}}", part)
    return whole


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def _values(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [math.exp(record["nll"]) if key == "perplexity" else record[key] for record in records]


def words(runs: Runs) -> str:
    """What the still picture shows, in words."""
    said = []
    for name, records in runs.items():
        ends = []
        for panel in PANELS[:3]:
            values, scale = _values(records, panel.key), SCALES.get(panel.key, "points")
            ends.append(f"{panel.unit} {number(values[0], scale)} → {number(values[-1], scale)}")
        said.append(f"{name}, {records[-1]['step']} steps: {', '.join(ends)}.")
    return " ".join(said)


def picture(runs: Runs) -> str:
    """The still picture as a data URL: the runs' curves as the labs draw them."""
    lines: dict[str, dict[str, Any]] = {panel.key: {} for panel in PANELS}
    for name, records in runs.items():
        for panel in PANELS:
            lines[panel.key][name] = ([r["step"] for r in records], _values(records, panel.key))
    file = io.BytesIO()
    Curves(PANELS).draw(lines, source="recorded").savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{_base64(file.getvalue())}"


def table(runs: Runs) -> str:
    """The numbers of the still picture."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in ("pull", "step", *(panel.unit for panel in PANELS)))
    rows = []
    for name, records in runs.items():
        columns = [_values(records, panel.key) for panel in PANELS]
        for record, *own in zip(records, *columns, strict=True):
            told = [number(v, SCALES.get(p.key, "points")) for p, v in zip(PANELS, own, strict=True)]
            rows.append("".join(f"<td>{cell}</td>" for cell in (name, str(record["step"]), *told)))
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def main(folder: Path) -> None:
    if not has_compiler():
        sys.exit("ziglang, the compiler from PyPI, is missing: pip install -r requirements.txt")
    with tempfile.TemporaryDirectory() as place:
        (folder / NAME).write_text(page(Path(place)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
