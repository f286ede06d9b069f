"""The report against a results dict worked out by hand: its numbers, its page, and what a full disk leaves behind."""

import base64
import copy
import errno
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import report, tables

FILES = ["curves.png", "drift.png", "frontier.png", "report.html", "results.json", "trade_off.png"]
RECIPE = {"model": "tiny-bert", "new": "sentiment", "steps": 20, "lr": 0.001, "batch_size": 32, "text": None}


def run(method, seed, *rows, end="done"):
    """A run from one row of (accuracy, perplexity, f1) for each record, ten steps apart."""
    records = []
    for i, (accuracy, perplexity, f1) in enumerate(rows):
        scores = {"sentiment": {"accuracy": accuracy}, "masked-lm": {"perplexity": perplexity}, "entities": {"f1": f1}}
        moved = {"embeddings": 0.5 * i, "layer 0": 1.5 * i}
        last = i == len(rows) - 1
        note = {
            "status": end if last else "running",
            "message": "the loss blew up" if last and end == "diverged" else "",
        }
        records.append({"step": 10 * i, "scores": scores, "drift_per_layer": moved, "source": "live", **note})
    return {"recipe": {**RECIPE, "methods": method, "seed": seed}, "records": records}


def score(before, after, spread, change):
    return {"before": before, "after": after, "spread": spread, "change": change}


def summary(method, new, lm, entities, status=("done",)):
    tasks = {"sentiment": new, "masked-lm": lm, "entities": entities}
    return {
        "method": method,
        "seeds": 2,
        "status": list(status),
        "seconds_per_step": 0.0123,
        "drift": 1.0,
        "tasks": tasks,
    }


START = (0.5, 2.0, 0.8)
RESULTS = {
    "forgetlab": "0.1.0",
    "machine": {"torch": "2.13.0", "threads": 2, "device": "cpu (x86_64)"},
    "model": {"name": "tiny-bert", "parameters": 912345},
    "new": "sentiment",
    "tasks": [
        {"name": "sentiment", "kind": "classes", "metric": "accuracy", "higher_is_better": True, "floor": None},
        {"name": "masked-lm", "kind": "masked-lm", "metric": "perplexity", "higher_is_better": False, "floor": 1.9},
        {"name": "entities", "kind": "tagging", "metric": "f1", "higher_is_better": True, "floor": None},
    ],
    "runs": [
        run("none", 0, START, (0.92, 36.0, 0.63)),
        run("none", 1, START, (0.96, 40.0, 0.67)),
        run("replay:ratio=0.3", 0, START, (0.90, 2.4, 0.81)),
        run("replay:ratio=0.3", 1, START, (0.90, 2.6, 0.83)),
    ],
    # means of the runs above; the deviation of two values is their distance over √2
    "summary": [
        summary("none", score(0.5, 0.94, 0.0283, 0.44), score(2.0, 38.0, 2.83, 19.0), score(0.8, 0.65, 0.0283, -0.15)),
        summary(
            "replay:ratio=0.3", score(0.5, 0.9, 0, 0.4), score(2.0, 2.5, 0.141, 1.25), score(0.8, 0.82, 0.0141, 0.02)
        ),
    ],
    "notes": ["reviews.csv: 3 rows were empty"],
    "command": "python -m forgetlab compare --new reviews.csv",
}


@pytest.fixture
def results():
    return copy.deepcopy(RESULTS)


@pytest.fixture
def quick(monkeypatch):
    """No pictures, where they do not matter."""
    monkeypatch.setattr(report.plots, "FIGURES", dict.fromkeys(report.plots.FIGURES, lambda results, source: None))
    monkeypatch.setattr(report.plots, "png", lambda figure, alt: b"\x89PNG")


def page(results, folder):
    return report.write(results, folder).read_text(encoding="utf-8")


def flat(text):
    """One blank between words: alignment left out."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_table_holds_the_numbers(results):
    *_, before, none, replay, legend = flat(tables.table(results))
    assert before == "before 0.50 2.00 0.80"
    assert none == "none 0.94 ±0.03 38.0 ±2.83 ×19.0 0.65 ±0.03 −0.15 12.3"
    assert replay == "replay:ratio=0.3 0.90 ±0.00 2.50 ±0.14 ×1.25 0.82 ±0.01 +0.02 12.3"
    assert legend.startswith("±: standard deviation over seeds")


def test_the_error_of_the_items_stands_beside_the_spread(results):
    new, lm, entities = results["summary"][1]["tasks"].values()
    new |= {"error": 0.012, "told": True}
    lm |= {"error": 0.083, "told": False}
    entities |= {"error": 0.021, "told": False, "spread": None}
    *_, replay, _, question = flat(tables.table(results))
    assert replay == "replay:ratio=0.3 0.90 ±0.00/0.01 2.50 ±0.14/0.08 ×1.25? 0.82 ±–/0.02 +0.02? 12.3"
    assert question == "?: cannot be told from no change"


def test_methods_that_start_unlike_have_their_own_before(results):
    results["summary"][1]["tasks"]["entities"]["before"] = 0.7
    *_, before, none, replay, _ = flat(tables.table(results))
    assert before == "before 0.50 2.00"
    assert none == "none 0.94 ±0.03 38.0 ±2.83 ×19.0 0.80 → 0.65 ±0.03 −0.15 12.3"
    assert "0.70 → 0.82" in replay


def test_the_direction_and_the_sign_are_the_tasks_own(results):
    results["tasks"][1] |= {"metric": "word_surprise", "scale": "ratio"}
    results["tasks"][2] |= {"metric": "perplexity", "scale": "points"}
    none = flat(tables.table(results))[-3]
    assert none == "none 0.94 ±0.03 38.0 ±2.83 ×19.0 0.65 ±0.03 −0.15 12.3"


def test_the_table_names_tasks_metrics_and_columns_are_aligned(results):
    lines = tables.table(results).splitlines()
    assert flat(lines[0])[0] == "method new: sentiment masked-lm entities ms/step"
    assert flat(lines[1])[0] == "accuracy perplexity f1"
    places = [[m.start() for m in re.finditer("±", line)] for line in lines[4:6]]
    assert places[0] == places[1]
    assert len(places[0]) == 3
    assert lines[0].index("masked-lm") == lines[1].index("perplexity") == lines[3].index("2.00")


def test_one_seed_has_no_spread_and_a_status_other_than_done_is_said(results):
    for row in results["summary"]:
        for one in row["tasks"].values():
            one["spread"] = None
    results["summary"][1]["status"] = ["stopped"]
    text = tables.table(results)
    assert "±" not in text
    assert "replay:ratio=0.3 (stopped)" in text
    assert "done" not in text


def test_a_diverged_run_has_no_scores_afterwards(results):
    results["summary"][0] = summary(
        "none", score(0.5, 0.5, 0.0, 0.0), score(2.0, None, None, None), score(0.8, 0.0, 0.0, -0.8), ["diverged"]
    )
    results["summary"][0]["seconds_per_step"] = None
    none = flat(tables.table(results))[-3]
    assert none == "none (diverged) – – – –"


def test_three_watched_tasks_and_long_names_fit_in_120_columns(results):
    results["tasks"].append({"name": "acceptability_of_all_" * 3, "metric": "accuracy"})
    for row in results["summary"]:
        row["method"] = "replay:ratio=0.3+l2sp:lam=0.1,beta=0.01"
        row["tasks"]["acceptability_of_all_" * 3] = score(0.95, 0.81, 0.02, -0.14)
    lines = tables.table(results).splitlines()
    assert max(map(len, lines)) <= 120
    assert sum("+l2sp:lam=0.1" in line for line in lines) == 2


def test_the_folder_holds_the_report(results, tmp_path):
    written = report.write(results, tmp_path / "a" / "out")
    assert written == tmp_path / "a" / "out" / "report.html"
    assert sorted(path.name for path in written.parent.iterdir()) == FILES
    assert [path.name for path in written.parent.parent.iterdir()] == ["out"]
    assert json.loads((written.parent / "results.json").read_text()) == results
    assert (written.parent / "curves.png").read_bytes().startswith(b"\x89PNG")


class Tags(HTMLParser):
    """Every tag with its attributes, and whether they nest."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_stands_alone(results, tmp_path):
    text = page(results, tmp_path / "out")
    tags = Tags(text)
    assert not tags.open
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert [image["alt"][:10] for image in images] == ["Share kept", "Without a ", "sentiment ", "Layers tha"]
    for image in images:
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.seen}
    bare = re.sub(r'src="data:image/png;base64,[^"]*"', "", text)
    assert "http" not in bare
    assert "src=" not in bare
    assert "url(" not in bare
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags.seen
    assert "color-scheme: light dark" in bare


def test_the_page_says_what_was_run_and_how_to_read_it(results, tmp_path, quick):
    text = "".join(Tags(page(results, tmp_path / "out")).text)
    for words in (
        "912,345 weights",
        "20 steps",
        "learning rate of 0.001",
        "methods: none, replay:ratio=0.3; seeds: 0, 1; watched: masked-lm, entities.",
        "2.00 → 38.0 ±2.83×19.0",
        "0.80 → 0.82 ±0.01+0.02",
        "reviews.csv: 3 rows were empty",
        "Forgetting is",
        "floor",
        "steps=20",
        "python -m forgetlab compare --new reviews.csv",
        "torch 2.13.0",
        "cpu (x86_64)",
        "Without a remedy, sentiment (accuracy) rises from 0.50 to 0.94",
    ):
        assert words in text, words


def test_the_recipe_names_the_tasks_that_were_taken_by_default(results, tmp_path, quick):
    for run in results["runs"]:
        run["recipe"] |= {"new": "", "watch": []}
    text = "".join(Tags(page(results, tmp_path / "out")).text)
    assert f"new={results['new']}" in text
    assert "watch=masked-lm,entities" in text


def test_nothing_from_the_user_becomes_markup(results, tmp_path, quick):
    evil = "<script>alert('1')</script>&\"+<b>"
    data = json.loads(json.dumps(results).replace("entities", "EVIL").replace("replay:ratio=0.3", "EVIL"))
    data = {**data, "notes": ["EVIL"], "command": "EVIL", "new": "EVIL"}
    data["model"]["name"] = data["machine"]["device"] = data["runs"][0]["recipe"]["new"] = "EVIL"
    data["runs"][0]["records"][-1]["message"] = "EVIL"
    data = json.loads(json.dumps(data).replace("EVIL", json.dumps(evil)[1:-1]))
    text = page(data, tmp_path / "out")
    assert "<script" not in text
    tags = Tags(text)
    assert not tags.open
    assert "".join(tags.text).count("<script>alert('1')") >= 9


def test_a_diverged_run_is_reported_with_its_message(results, tmp_path, quick):
    results["runs"][1] = run("none", 1, START, (0.5, None, 0.0), end="diverged")
    results["summary"][0]["status"] = ["diverged", "done"]
    text = page(results, tmp_path / "out")
    assert "plain fine-tuning, seed 1: the loss blew up" in text
    assert "none (diverged, done)" in text.replace("<wbr>", "")
    assert "None" not in re.sub(r'"data:[^"]*"', "", text)


def test_the_lambda_that_a_strength_was_is_said_once(results, tmp_path, quick):
    for run, lam in zip(results["runs"][2:], ("7.3", "7.5"), strict=True):
        run["records"][0]["notes"] = [f"ewc: λ = {lam}, 1 × the usual strength", *results["notes"]]
    text = page(results, tmp_path / "out")
    assert text.count("<li>replay:ratio=0.3: ewc: λ = 7.3, 1 × the usual strength</li>") == 1
    assert "7.5" not in text
    assert text.count("reviews.csv: 3 rows were empty") == 1


def test_no_watched_task_no_trade_off(results, tmp_path, quick):
    results["tasks"] = results["tasks"][:1]
    assert report.write(results, tmp_path / "out").parent.joinpath("curves.png").exists()
    assert not (tmp_path / "out" / "trade_off.png").exists()


def test_numbers_that_are_not_finite_are_refused(results, tmp_path, quick):
    results["runs"][0]["recipe"]["lr"] = float("nan")
    with pytest.raises(ForgetlabError, match="not finite"):
        report.write(results, tmp_path / "out")
    assert not list(tmp_path.iterdir())


class Full:
    """A file on a disk that is full after half of what is written."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def full_disk(monkeypatch, name):
    """Writing the file of that name stops half-way."""
    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *more, **options: (
            Full(opened(path, mode, *more, **options))
            if path.name == name and "w" in mode
            else opened(path, mode, *more, **options)
        ),
    )


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_leaves_nothing_half_written(results, tmp_path, monkeypatch, name, quick):
    full_disk(monkeypatch, name)
    with pytest.raises(ForgetlabError, match="No space left on device") as caught:
        report.write(results, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_earlier_report_as_it_was(results, tmp_path, monkeypatch, quick):
    report.write(results, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    results["notes"] = ["another"]
    full_disk(monkeypatch, "report.html")
    with pytest.raises(ForgetlabError):
        report.write(results, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_earlier_report_is_replaced_and_other_files_are_kept(results, tmp_path, quick):
    report.write(results, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    results["notes"] = ["second time"]
    assert "second time" in page(results, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*FILES, "mine.txt"])


def test_a_folder_with_something_else_is_refused(results, tmp_path, quick):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ForgetlabError, match="choose another folder"):
        report.write(results, tmp_path)
    (tmp_path / "results.json").write_text('{"accuracy": 0.9}')  # of another program
    with pytest.raises(ForgetlabError, match="choose another folder"):
        report.check_folder(tmp_path)
    with pytest.raises(ForgetlabError, match="choose another folder"):
        report.check_folder(tmp_path / "thesis.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "thesis.txt"]


def test_an_empty_folder_the_present_one_and_a_new_one_are_fine(results, tmp_path, monkeypatch, quick):
    report.check_folder(tmp_path / "new" / "one")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert report.write(results, ".") == tmp_path / "empty" / "report.html"
    assert sorted(path.name for path in Path().iterdir()) == FILES


def test_a_file_in_the_way_is_an_error_in_one_line(results, tmp_path, quick):
    (tmp_path / "file").write_text("")
    with pytest.raises(ForgetlabError, match="cannot write the report"):
        report.write(results, tmp_path / "file" / "out")


def test_the_recommendation_stands_on_the_page_and_fits_the_terminal(results, tmp_path, quick):
    results["recommendation"] = ["To keep ≥ 95 % of the old scores: replay <b>", "x" * 50 + " " + "y" * 90]
    assert "What to choose" not in page({**results, "recommendation": []}, tmp_path / "none")
    text = "".join(Tags(page(results, tmp_path / "out")).text)
    assert "What to choose" in text
    assert "To keep ≥ 95 % of the old scores: replay <b>" in text
    assert report.filled(results["recommendation"])[1:] == ["x" * 50, "  " + "y" * 90]


def test_no_more_methods_in_a_figure_than_can_be_told_apart(results, tmp_path, monkeypatch, quick):
    shown = {}
    for kind in report.plots.FIGURES:
        monkeypatch.setitem(report.plots.FIGURES, kind, lambda few, source, kind=kind: shown.update({kind: few}))
    for i in range(8):  # the higher i, the more of the entities is kept
        results["runs"].append(run(f"ewc:lam={i}", 0, START, (0.90, 2.0, 0.1 * i)))
        results["summary"].append({**results["summary"][1], "method": f"ewc:lam={i}"})
    text = page(results, tmp_path / "out")
    kept = {one["recipe"]["methods"] for one in shown["curves"]["runs"]}
    assert kept == {"none", "replay:ratio=0.3", *(f"ewc:lam={i}" for i in (4, 5, 6, 7))}
    assert "Shown are 6 of 10 methods" in text
    assert all(f"ewc:lam={i}" in text.replace("<wbr>", "") for i in range(8))  # the table has them all


def test_a_folder_of_an_interrupted_comparison_is_ours(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sweep.json").write_text('{"forgetlab": "0.1.0"}')
    report.check_folder(tmp_path)


def test_a_folder_that_allows_no_writing_is_said_at_once(tmp_path):
    with pytest.raises(ForgetlabError, match="cannot write the report to /proc/new/one"):  # not even root may
        report.check_folder("/proc/new/one")
    report.check_folder(tmp_path / "new" / "one")
    assert not list(tmp_path.iterdir())
