"""Labs as playable records: a figure's artists as plain marks, and the page in Chromium from a file."""

from __future__ import annotations

import copy
import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from docutils import nodes
from matplotlib.figure import Figure

from book.player import page as pages
from book.player import records
from book.player.drawing import drawing
from book.player.tables import table
from forgetlab import labs
from forgetlab.labs.kit.settings import from_line, to_line
from forgetlab.plots.style import COLORS
from tests.browser.jupyter import chromium

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")

from playwright.sync_api import Browser, Locator, Page

from tests.book.pages import opened
from tests.book.playing import WORDS, write

in_chromium = pytest.mark.skipif(chromium() is None, reason="no Chromium: install Debian's chromium, or set CHROMIUM")


# -- a figure as panels ------------------------------------------------------------------------------------------------


def figure() -> Figure:
    made = Figure()
    left, right = made.subplots(1, 2)
    left.plot([0, 1, 2], [1.23456, np.nan, 3], "s--", color="#bd1f01", label="one", lw=2, alpha=0.5)
    left.plot([1], [10], "o", mfc="white", color="#3f90da", label="_hidden")
    left.axhline(2, color="#666666", ls=":")
    left.annotate("here", (1, 10), (3, 4), textcoords="offset points", ha="right", weight="bold")
    left.text(0.5, 0.5, "middle", transform=left.transAxes)
    left.annotate("", (2, 20), (0, 10), arrowprops={"arrowstyle": "->", "color": "#832db6"})
    left.set(title="A", xlabel="step", ylabel="loss", yscale="log", xlim=(0, 4), ylim=(1, 100))
    right.barh([0, 1], [3, -2], 0.5, color="#832db6", label="bars", hatch="//")
    right.set_yticks([0, 1], ["up", "down"])
    right.set_ylim(1.5, -0.5)
    made.legend(loc="outside lower center")
    return made


def test_known_artists_become_marks() -> None:
    found = drawing(figure())
    left, right = found["panels"]
    assert (left["title"], left["x"]["label"], left["y"]["label"]) == ("A", "step", "loss")
    assert (left["x"]["log"], left["y"]["log"]) == (False, True)
    assert (left["x"]["limits"], left["y"]["limits"]) == ([0, 4], [1, 100])
    line, dots, rule, arrow, here, middle = [
        m for kind in ("line", "dots", "rule", "arrow", "text") for m in of(left, kind)
    ]
    assert (line["x"], line["y"]) == ([0, 1, 2], [1.235, None, 3])
    assert (line["label"], line["color"], line["marker"], line["opacity"]) == ("one", "#bd1f01", "s", 0.5)
    assert [float(one) for one in line["dash"].split()] == pytest.approx([2 * 3.7, 2 * 1.6])
    assert (dots["filled"], dots["label"]) == (False, "")
    assert (rule["axis"], rule["at"]) == ("y", 2)
    assert [arrow[end] for end in ("x1", "y1", "x2", "y2")] == [0, 10, 2, 20]
    assert [here[key] for key in ("x", "y", "dx", "dy", "anchor", "bold")] == [1, 10, 3, -4, "end", True]
    assert (middle["x"], middle["y"]) == (2, 10)  # half of a log axis from 1 to 100
    (bars,) = of(right, "rects")
    assert (bars["x1"], bars["x2"], bars["y1"]) == ([0, -2], [3, 0], [-0.25, 0.75])
    assert (bars["label"], bars["hatch"]) == ("bars", "//")
    assert right["y"]["ticks"] == [[0, "up"], [1, "down"]]
    assert right["y"]["limits"] == [1.5, -0.5]
    assert [entry["label"] for entry in found["legend"]["entries"]] == ["one", "bars"]


def of(panel: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [mark for mark in panel["marks"] if mark["kind"] == kind]


def test_images_contours_and_words() -> None:
    made = Figure()
    image, contours, words = made.subplots(1, 3)
    image.imshow([[0, 1], [np.nan, 0.5]], cmap="Blues", vmin=0, vmax=1)
    x = np.linspace(-1, 1, 21)
    contours.contourf(x, x, np.hypot(*np.meshgrid(x, x)), [0.25, 0.5, 0.75])
    words.axis("off")
    words.text(0, 0.2, "below")
    words.text(0.1, 0.9, "second", fontsize=16)
    words.text(0, 0.9, "first")
    cells, rings, off = drawing(made)["panels"]
    (found,) = of(cells, "rects")
    assert found["color"] == ["#f7fbff", "#08306b", "#6aaed6"]  # the ends and the middle of ColorBrewer's Blues
    assert sorted({*found["x1"], *found["x2"]}) == [-0.5, 0.5, 1.5]
    inner = np.array(of(rings, "area")[0]["rings"][0])
    assert np.hypot(*inner.T).max() == pytest.approx(0.5, abs=0.01)
    assert rings["ramp"]["low"] == 0.25
    assert (cells["fixed"], rings["fixed"]) == (True, True)
    assert [[word["text"] for word in row] for row in off["lines"]] == [["first", "second"], ["below"]]
    assert off["lines"][0][1]["large"]


def test_the_table_says_the_numbers() -> None:
    html = table(drawing(figure()))
    assert re.search(r'<th scope="row">2</th><td>3</td><td></td>', html)
    assert re.search(r'<th scope="row">down</th><td>-2</td>', html)


@pytest.mark.long
def test_every_lab_opens_as_a_drawing() -> None:
    for name in labs.LABS:
        found = records.opening(name)
        assert found is not None, name
        assert found["words"]
        marks = [mark for panel in found["panels"] for mark in panel["marks"]]
        assert marks or name == "ask"
        assert len(table(found)) > 100 or name in ("ask", "cloud"), name
        json.dumps(found, allow_nan=False)


# -- the page ----------------------------------------------------------------------------------------------------------

FAINT = 'svg [stroke*=faint][stroke-width="1.2"]'
RATES, SEEDS = (1e-4, 1e-3, 1e-2), (0, 1)
PULLS = {"EWC": (1.0, 100.0), "L2-SP": (0.01, 0.1, 1.0)}


def runs(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Runs of watch: of two rates and two seeds, and of a third rate with one seed only; each number is its own.

    Of pull: of each method at strengths of its own.
    """
    lab = labs.show(name, driver="inline")
    if name == "pull":
        points = [{"method": method, "lam": lam} for method, strengths in PULLS.items() for lam in strengths]
        return [({**lab.settings(), **point}, {**lab.state, "message": str(point)}) for point in points]
    found = []
    for rate, seed in [(1e-3, 0), *((rate, seed) for rate in RATES for seed in SEEDS if (rate, seed) != (1e-3, 0))][
        :-1
    ]:
        state = copy.deepcopy(lab.state)
        end = state["records"][-1]["scores"]["sentiment"]
        end["accuracy"] = round(0.5 + 0.05 * RATES.index(rate) + 0.2 * seed, 3)
        state["message"] = f"ends at {end['accuracy']}"
        found.append(({**lab.settings(), "lr": rate, "seed": seed}, state))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("player")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.kept, "read", runs)
        for name in ("watch", "pull"):
            records.written(name, made / "records")
    write(made, ["watch"])
    return made


@pytest.fixture
def page(started: Browser, folder: Path) -> Iterator[Page]:
    with opened(started, folder / "page.html") as one:
        yield one


def control(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True)


def says(page: Page) -> str:
    return page.locator(".fl-says").inner_text()


@in_chromium
def test_a_slider_stops_where_a_run_is_and_shows_it(page: Page) -> None:
    assert WORDS not in page.inner_text("main")
    assert "recorded" in page.inner_text(".fl-head")
    assert says(page) == "ends at 0.55"
    rate = control(page, "learning rate")
    assert (rate.get_attribute("max"), rate.get_attribute("aria-valuetext")) == ("2", "0.001")
    control(page, "seed").press("ArrowRight")
    assert says(page) == "ends at 0.75"
    assert page.locator(".fl-change").nth(1).inner_text() == "sentiment 0.55 → 0.75"
    assert page.locator(".fl-plot").first.locator(FAINT).count() == 1  # the run before it
    page.locator("summary").click()
    last = page.locator(".fl-numbers table").first.locator("tr").last
    assert last.inner_text().split() == ["100", "0.75"]
    assert (
        page.locator(".fl-line input").input_value() == "forgetlab 1 watch: lr=0.001, steps=100, similarity=1, seed=1"
    )
    assert control(page, "steps").count() == 0
    assert "Only the live lab moves steps, similarity" in page.inner_text(".fl-open")


@in_chromium
def test_a_move_off_the_grid_goes_to_the_nearest_run_and_says_so(page: Page) -> None:
    control(page, "seed").press("ArrowRight")
    control(page, "learning rate").press("End")  # no run with seed 1
    assert says(page) == "No run was recorded there with the rest as it was; also moved: seed 0. ends at 0.6"
    assert control(page, "seed").input_value() == "0"
    page.get_by_role("button", name="gentle").click()
    assert says(page) == "ends at 0.5"
    page.get_by_role("button", name="Reset").click()
    assert says(page) == "ends at 0.55"
    assert page.locator(FAINT).count() == 0


@in_chromium
def test_a_slider_stops_where_the_chosen_method_was_run(started: Browser, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "records", tmp_path / "records")
    with opened(started, write(tmp_path, ["pull"])) as page:
        strength, method = control(page, "λ"), control(page, "method")
        assert (strength.get_attribute("max"), strength.get_attribute("aria-valuetext")) == ("1", "100")
        method.select_option(label="L2-SP")
        assert (strength.get_attribute("max"), strength.get_attribute("aria-valuetext")) == ("2", "1")
        assert says(page) == (
            "No run was recorded there with the rest as it was; also moved: λ 1. {'method': 'L2-SP', 'lam': 1.0}"
        )
        strength.press("Home")
        assert page.locator(".fl-line input").input_value().startswith("forgetlab 1 pull: lam=0.01, method=L2-SP, ")
        assert page.get_by_role("button", name="LwF").count() == 0  # of which no run is recorded


@in_chromium
def test_a_settings_line_leads_to_its_run_or_the_nearest(page: Page) -> None:
    line = page.locator(".fl-line input")

    def paste(text: str) -> str:
        line.fill(text)
        line.press("Enter")
        return says(page)

    assert paste("forgetlab 1 watch: lr=0.0001, seed=1") == "ends at 0.7"
    near = paste("forgetlab 1 watch: lr=0.05, steps=40, seed=0")
    assert near.startswith(
        "No run was recorded at these settings. This is the nearest one: learning rate 0.01 (asked: 0.05)"
    )
    assert "steps 100 (asked: 40)" in near


WRONG = (
    "hello",
    "forgetlab 2 watch: lr=0.1",
    "forgetlab 1 pull: lam=1",
    "forgetlab 1 watch: sead=1",
    "forgetlab 1 watch: temperature=1",
    "forgetlab 1 watch: lr=",
    "forgetlab 1 watch: lr",
    "forgetlab 1 watch: lr=fast",
    "forgetlab 1 watch: lr=7",
    "forgetlab 1 watch: steps=1.5",
    "forgetlab 1 watch: " + "x" * 2000,
)


@in_chromium
def test_errors_of_a_line_are_those_of_the_live_lab(page: Page) -> None:
    lab = labs.show("watch", driver="inline")
    before = says(page)
    for text in WRONG:
        with pytest.raises(Exception) as error:  # noqa: PT011
            from_line("watch", text, lab.training)
        page.locator(".fl-line input").fill(text)
        page.locator(".fl-line input").press("Enter")
        said = str(error.value).replace("this forgetlab reads", "this page reads")
        assert says(page) == f"{said} Nothing was changed.", text
    assert page.evaluate("forgetlab.players[0].drawing.words") == before


@in_chromium
def test_lines_are_written_as_python_does(page: Page) -> None:
    values = [1e-5, 0.1, 1 / 3, 123456.0, 1234567.0, 1e6, 1e22, 5e-324, 0.0, 2.5, 100.0]
    lines = page.evaluate(
        "all => all.map(lr => forgetlab.lines.toLine(forgetlab.records.watch, {lr, steps: 1, similarity: 1, seed: 0}))",
        values,
    )
    settings = [{"lr": value, "steps": 1, "similarity": 1.0, "seed": 0} for value in values]
    assert lines == [to_line("watch", one) for one in settings]


@in_chromium
def test_a_lab_without_records_says_so_and_keeps_its_picture(started: Browser, folder: Path, tmp_path: Path) -> None:
    old = (folder / "records" / "watch.js").read_text("utf-8").replace('"version":1', '"version":0', 1)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "watch.js").write_text(old, "utf-8")
    (tmp_path / "records" / "pull.js").write_text("", "utf-8")
    with opened(started, write(tmp_path, ["watch", "pull"])) as page:
        said = page.locator(".fl-trouble").all_inner_texts()
        assert "are of version 0, this page plays version 1" in said[0]
        assert "are not in this book" in said[1]
        assert page.locator(f"text={WORDS}").count() == 2
        assert page.locator(f"text={WORDS}").first.is_visible()


@in_chromium
def test_without_scripts_and_in_print_the_picture_stays(started: Browser, folder: Path) -> None:
    with opened(started, folder / "page.html", java_script_enabled=False) as page:
        assert page.locator(f"text={WORDS}").is_visible()
    with opened(started, folder / "page.html") as page:
        assert not page.locator(f"text={WORDS}").is_visible()
        page.emulate_media(media="print")
        assert page.locator(f"text={WORDS}").is_visible()
        assert not page.locator(".fl-lab").is_visible()


# Costs of a run by the words of the rule, from the values alone: those that must stay, others that differ, how far.
def cost(values: dict[str, Any], wanted: dict[str, Any], must: list[str]) -> tuple[float, ...]:
    far = {
        "rate": abs(math.log10(values["rate"] / wanted["rate"])) / 4,
        "method": float(values["method"] != wanted["method"]),
        "seed": abs(values["seed"] - wanted["seed"]) / 9,
    }
    moved = [name for name in far if far[name] > 1e-6]
    return len([m for m in moved if m in must]), len([m for m in moved if m not in must]), sum(far.values())


@in_chromium
def test_the_nearest_run_is_the_one_with_the_fewest_changes_then_the_least_far(page: Page) -> None:
    draw = random.Random(0)
    values = {"rate": [1e-4, 1e-3, 1e-2, 1.0], "method": ["a", "b"], "seed": [0, 3, 9]}
    controls = [
        {"name": "rate", "kind": "slider", "range": [1e-4, 1, 0.25, True], "values": values["rate"]},
        {"name": "method", "kind": "choice", "values": values["method"]},
        {"name": "seed", "kind": "slider", "range": [0, 9, 1, False], "values": values["seed"]},
    ]
    names = list(values)
    rows = [[i, j, k] for i in range(4) for j in range(2) for k in range(3)]
    cases: list[Any] = []
    for _ in range(100):
        runs = draw.sample(rows, 7)
        wanted = {"rate": 10 ** draw.uniform(-4, 0), "method": draw.choice("ab"), "seed": draw.randint(0, 9)}
        cases.append([{"controls": controls, "runs": [{"at": run} for run in runs]}, wanted, draw.sample(names, 1)])
    find = "all => all.map(([lab, wanted, must]) => forgetlab.lines.nearest(lab, wanted, must).at)"
    found = page.evaluate(find, cases)
    for at, (lab, wanted, must) in zip(found, cases, strict=True):
        told = {tuple(run["at"]): cost(named(run["at"], values), wanted, must) for run in lab["runs"]}
        best = min(told.values())
        assert told[tuple(at)] == pytest.approx(best), (wanted, must)


def named(at: list[int], values: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: values[name][i] for name, i in zip(values, at, strict=True)}


@in_chromium
def test_keys_labels_and_colours_are_for_everyone(started: Browser, folder: Path) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed: pip install -r requirements.txt")
    from tests.browser.axe import serious

    for theme in ("light", "dark"):
        with opened(started, folder / "page.html", viewport={"width": 400, "height": 800}) as page:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
            assert serious(page, ".fl-lab") == [], theme
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.type") == "range"
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def light(color: str) -> float:
    """The relative luminance of a colour (WCAG 2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_colour_of_a_line_is_seen_on_both_grounds() -> None:
    css = (Path(__file__).parents[2] / "book" / "player" / "player.css").read_text("utf-8")
    day, night = (dict(re.findall(r"--fl-([\w]+): (#\w{6})", part)) for part in css.split("@media screen", 1))
    for ground in (day, day | night):
        for color in ("ink", "faint", "edge", "accent", *(one[1:] for one in COLORS)):
            pair = sorted((light(ground[color]), light(ground["ground"])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3, (color, ground[color])


def test_a_lesson_page_is_wrapped_where_a_lab_is_shown(tmp_path: Path) -> None:
    badge = "https://colab.research.google.com/github/someone/forgetlab/blob/main/notebooks/lesson.ipynb"
    (tmp_path / "lesson.ipynb").write_text(f"[]({badge})", "utf-8")
    page = nodes.document(None, None)  # type: ignore[arg-type]
    for code in ("from forgetlab import labs\n\nlabs.watch.show()", "print(1)", "labs.nothing.show()"):
        output = nodes.container("", nodes.image(uri="a.png"), classes=["cell_output"])
        page += nodes.container("", nodes.literal_block(text=code), output, classes=["cell"])
    pages.with_labs(SimpleNamespace(srcdir=tmp_path), page, "lesson")
    start, image, end = page.children[0].children[1].children
    assert start.astext().startswith(
        '<div class="forgetlab-lab" data-lab="watch" data-notebook="_sources/lesson.ipynb"'
    )
    assert f'data-colab="{badge}"' in start.astext()
    assert isinstance(image, nodes.image)
    assert "After 100 steps" in end.astext()
    assert "<table>" in end.astext()
    assert [len(cell.children[1].children) for cell in page.children] == [3, 1, 1]
