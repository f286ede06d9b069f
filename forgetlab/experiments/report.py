"""What a comparison found, as a folder with a self-contained HTML page; its tables are in `tables`."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from forgetlab import plots
from forgetlab.errors import ForgetlabError
from forgetlab.experiments import frontier_plot
from forgetlab.experiments.folders import REPORT_DRAFT, check_folder
from forgetlab.experiments.frontier import dots, mean
from forgetlab.experiments.recipe import called
from forgetlab.experiments.recommendation import pick
from forgetlab.experiments.tables import html_table, html_verdicts
from forgetlab.metrics.schema import PlainRecord, Results
from forgetlab.sources.json_files import sync_folder

MOST = 6  # methods in a figure with lines
CAPTIONS = {
    "curves": "Every task along the run: the new one, and the watched ones, which show what it costs.",
    "trade_off": "What is learned against what is forgotten, at the end of the run; bars: deviation over seeds.",
    "frontier": "What is kept of the old against what is learned of the new: means over seeds with their deviation; "
    "small dots: other strengths, at one seed. Beyond the dashed line enough is kept.",
    "drift": "How far the weights of each layer have moved from where they were before.",
}
HOW_TO_READ = (
    "The <b>new task</b> is what the model was fine-tuned on; the <b>watched</b> tasks were only measured.",
    "<b>Kept</b> is the share of what a watched task knew above a guesser, who knows only how frequent each class or "
    "word is, that is still there: 100 % is all, 0 % is no better than guessing. <b>Learned</b> is the share of the "
    "way from before to the best score. Of a perplexity both are taken in nats, that is, of its logarithm. A task that "
    "starts within its error of guessing has nothing to lose and counts nowhere.",
    "<b>Forgetting</b> is 1 − kept, averaged over the watched tasks. <b>After / before</b> is the plain ratio.",
    "<b>Perplexity</b> is the number of words that the model hesitates between; ×2 means twice as many. "
    "The <b>floor</b> is the lowest that any model can reach on these texts, where it is known.",
    "<b>±a/b</b>: a is the standard deviation over seeds, b the standard error that comes from the choice of the test "
    "items. <b>?</b> marks a change that cannot be told from none by both of them.",
    "<b>helps</b>, <b>harms</b>: the 95 % interval of the difference, of seeds and items, leaves 0 out.",
    "<b>Drift</b> is the distance ‖θ − θ₀‖ that weights have moved: far is not yet forgotten, but near is mostly kept.",
)
STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h1, p, li, code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font: .86rem/1.4 system-ui, sans-serif; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; } td b { margin-left: .4rem; }
small, figcaption { font-size: .8rem; font-weight: 400; opacity: .8; display: block; } figure { margin: 1.5rem 0; }
img { width: 704px; max-width: 100%; height: auto; background: #fff; border-radius: 6px; display: block; }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px; }
"""


def filled(lines: Sequence[str]) -> list[str]:
    """Lines of a recommendation for the terminal: 120 columns wide, what goes on is indented."""
    return [part for line in lines for part in textwrap.wrap(line, 120, subsequent_indent="  ", break_on_hyphens=False)]


def write(results: Results, folder: str | Path) -> Path:
    """Write report.html, its figures as PNG files and results.json into a folder; returns the path of report.html.

    Raises ForgetlabError where `put` does, and for numbers that are not finite.
    """
    check_folder(folder)
    return put(_files(results), folder) / "report.html"


def figure_html(png: bytes, alt: str, caption: str = "") -> str:
    """A picture as a figure of a page, in the page itself. caption: HTML; without one there is none."""
    picture = f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    return f"<figure>{picture}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def put(files: Mapping[str, bytes], folder: str | Path) -> Path:
    """Write a report's files into a folder; returns it in full.

    A new folder appears whole or not at all; in a folder that exists, each file is replaced whole once all are
    written, and other files are left alone. Raises ForgetlabError where `check_folder` does, and where the disk
    refuses.
    """
    check_folder(folder)
    folder = Path(folder).resolve()
    draft = (folder if folder.exists() else folder.parent) / f"{REPORT_DRAFT}{secrets.token_hex(4)}"
    try:
        for old in folder.glob(f"{REPORT_DRAFT}*"):  # of a process that was killed
            shutil.rmtree(old, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, content in files.items():
            with (draft / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # before a sweep counts as finished, its report is on the disk
        if folder.exists():
            for name in files:
                (draft / name).replace(folder / name)
        else:
            draft.rename(folder)
    except OSError as error:
        raise ForgetlabError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_folder(folder)
    return folder


def _files(results: Results) -> dict[str, bytes]:
    try:
        data = json.dumps(results, indent=1, allow_nan=False)
    except ValueError as error:
        raise ForgetlabError(f"the results hold a number that is not finite ({error})") from error
    source = results["runs"][0]["records"][0].get("source", "live")
    few, watched = _few(results), len(results["tasks"]) > 1
    kinds = [kind for kind in plots.FIGURES if kind != "trade_off" or watched]
    alts = {kind: plots.alt_text(kind, few) for kind in kinds}
    figures = {kind: plots.png(plots.FIGURES[kind](few, source=source), alt) for kind, alt in alts.items()}
    if watched and any(dot["kept"] for dot in dots(results["runs"], results["tasks"])):
        alts = {"frontier": frontier_plot.alt_text(results), **alts}
        picture = frontier_plot.frontier(results, source=source)
        figures = {"frontier": plots.png(picture, alts["frontier"]), **figures}
    page = _page(results, figures, alts).encode("utf-8", "replace")  # a file's name may be no valid text
    images = {f"{kind}.png": figure for kind, figure in figures.items()}
    return {**images, "results.json": data.encode(), "report.html": page}


def _few(results: Results) -> Results:
    """The same with no more methods than lines can be told apart: plain, the recommended one, the best balanced."""
    methods = list(dict.fromkeys(run["recipe"]["methods"] for run in results["runs"]))
    if len(methods) <= MOST:
        return results
    found = [dot for dot in dots(results["runs"], results["tasks"]) if dot["kept"]]
    found.sort(key=lambda dot: mean(dot, "kept") + mean(dot, "new"), reverse=True)
    first = pick(found, results.get("keep", 1.0))
    order = dict.fromkeys(["none", *([first["spec"]] if first else []), *(dot["spec"] for dot in found), *methods])
    chosen = [method for method in order if method in methods][:MOST]
    return {**results, "runs": [run for run in results["runs"] if run["recipe"]["methods"] in chosen]}


def _page(results: Results, figures: Mapping[str, bytes], alts: Mapping[str, str]) -> str:
    model, recipe = results["model"], results["runs"][0]["recipe"]
    seeds = dict.fromkeys(str(run["recipe"]["seed"]) for run in results["runs"])
    names = list(dict.fromkeys(run["recipe"]["methods"] for run in results["runs"]))
    methods = ", ".join(names) if names != ["none"] else called("none")
    few = f" Shown are {MOST} of {len(names)} methods; the table has them all." if len(names) > MOST else ""
    taken = [task["name"] for task in results["tasks"][1:]]
    watched = ", ".join(taken)
    what = (
        f"{model['name']} ({model['parameters']:,} weights) was fine-tuned on {results['new']} for {recipe['steps']} "
        f"steps with a learning rate of {recipe['lr']:g}; methods: {methods}; seeds: {', '.join(seeds)}; "
        f"watched: {watched or 'nothing'}."
    )
    title = escape(f"What learning {results['new']} cost {model['name']}")
    notes = [*results["notes"], *_said(results)]
    for run in results["runs"]:
        if message := run["records"][-1]["message"]:
            notes.append(f"{called(run['recipe']['methods'])}, seed {run['recipe']['seed']}: {message}")
    remarks = "".join(f"<li>{escape(note)}</li>" for note in notes)
    advice = "".join(f"<li>{escape(line)}</li>" for line in results.get("recommendation", []))
    images = "".join(
        figure_html(png, alts[kind], f"{CAPTIONS[kind]}{few if kind != 'frontier' else ''}")
        for kind, png in figures.items()
    )
    data = {"new": recipe["new"] or results["new"], "watch": ",".join(recipe.get("watch") or taken)}  # taken by default
    settings = " ".join(
        f"{k}={v}" for k, v in (recipe | data).items() if v is not None and k not in ("methods", "seed")
    )
    versions = ", ".join([f"forgetlab {results['forgetlab']}", *(f"{k} {v}" for k, v in results["machine"].items())])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head>
<body><h1>{title}</h1>
<p>{escape(what)}</p>
<p>{escape(alts["curves"])}</p>
<h2>Results</h2><div class="wide">{html_table(results)}</div>
{f"<h2>What to choose</h2><ul>{advice}</ul>" if advice else ""}
{html_verdicts(results)}
{images}
{f"<h2>Notes</h2><ul>{remarks}</ul>" if notes else ""}
<h2>How to read this</h2>
<ul>{"".join(f"<li>{line}</li>" for line in HOW_TO_READ)}</ul>
<h2>How it was made</h2><pre>{escape(results.get("command") or "called from Python")}</pre>
<p>Recipe: <code>{escape(settings)}</code></p>
<p>{escape(versions)}. All numbers are in <code>results.json</code>.</p>
</body></html>
"""


def _said(results: Results) -> list[str]:
    """What each method's first run began with, such as the λ that its strength was; what is known already left out."""
    first: dict[str, PlainRecord] = {}
    for run in results["runs"]:
        first.setdefault(run["recipe"]["methods"], run["records"][0])
    said = [(methods, note) for methods, record in first.items() for note in record.get("notes", ())]
    return [f"{methods}: {note}" for methods, note in said if note not in results["notes"]]
