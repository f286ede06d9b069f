"""The simulated labs of the book's pages against the Python labs: numbers, words and what is drawn."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright", reason="Playwright is not installed: pip install -r requirements.txt")

from playwright.sync_api import sync_playwright

from book.player.drawing import drawing
from forgetlab import labs, simulators
from forgetlab.labs import cloud, conflict, dynamics
from tests.browser.jupyter import FLAGS, chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium: install Debian's chromium, or set CHROMIUM to one"),
]
SCRIPT = Path(__file__).parents[2] / "book" / "player" / "simulated.js"
MODULES = {"dynamics": dynamics, "cloud": cloud, "conflict": conflict}
EXACT = 1e-9
NUMBERS = ("x", "y", "at", "x1", "x2", "y1", "y2")  # of a mark
Settings = dict[str, Any]
Draw = Callable[[str, list[Settings]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def draw() -> Iterator[Draw]:
    """What the script draws of a lab at some settings."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page()
        page.add_script_tag(path=SCRIPT)
        ask = "([lab, all]) => JSON.stringify(all.map(forgetlab.simulated[lab]))"
        yield lambda lab, settings: json.loads(page.evaluate(ask, [lab, settings]))
        browser.close()


def steps(control: Any) -> list[Any]:
    """Every value of a slider."""
    count = round((control.max - control.min) / control.step) + 1
    values = np.linspace(control.min, control.max, count).round(10)
    return [type(control.value)(v) for v in (control.base**values if hasattr(control, "base") else values)]


def settings_of(name: str, count: int) -> list[Settings]:
    """The settings a lab opens on, its presets, every corner of its sliders, and others drawn at random."""
    lab = labs.show(name, driver="inline")
    values = {key: steps(control) for key, control in lab.training.items()}
    corners = product(*((own[0], own[-1]) for own in values.values()))
    chance = random.Random(0)
    others = [{key: chance.choice(own) for key, own in values.items()} for _ in range(count)]
    opened = [lab.settings(), *({**lab.settings(), **change} for change in lab._presets.values())]
    return [*opened, *(dict(zip(values, corner, strict=True)) for corner in corners), *others]


@pytest.mark.parametrize(("name", "count"), [("dynamics", 200), ("cloud", 40), ("conflict", 200)])
def test_words_are_those_of_the_lab(draw: Draw, name: str, count: int) -> None:
    settings = settings_of(name, count)
    if name == "conflict":  # changes of 12.5, which are rounded to the even 12, and of 0.0000125
        settings += [{"angle": 90, "curvature": c, "rate": rate} for c in (0.25, 2.5) for rate in (0.01, 10**0.5)]
    found = [one["words"] for one in draw(name, settings)]
    assert found == [next(MODULES[name].work(one))["message"] for one in settings]


@pytest.mark.parametrize("name", MODULES)
def test_panels_are_those_of_the_labs_figure(draw: Draw, name: str) -> None:
    """Titles, axes, ticks, marks, their looks and legends, as they are read from the figure that the lab draws."""
    view, settings = MODULES[name].View(), settings_of(name, 4)
    for own, found in zip(settings, draw(name, settings), strict=True):
        true = json.loads(json.dumps(drawing(view.draw(next(MODULES[name].work(own))))))
        del found["words"]
        assert shape(found) == shape(true), own
        for panel, other in zip(found["panels"], true["panels"], strict=True):
            for mark, same in zip(panel["marks"], other["marks"], strict=True):
                for key in NUMBERS if np.size(mark.get("x", 0)) != 100 else ():  # a ring begins elsewhere
                    assert mark.get(key, 0) == pytest.approx(same.get(key, 0), rel=1e-3, abs=2e-4), (own, mark, key)


def shape(value: Any) -> Any:
    """What is drawn, with only the count of the numbers in each mark."""
    if isinstance(value, dict):
        return {key: count(one) if key in NUMBERS else shape(one) for key, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else value


def count(value: Any) -> Any:
    if isinstance(value, dict):
        return shape(value)  # an axis
    return len(value) if isinstance(value, list) else "number"


def marks(found: dict[str, Any], panel: int, kind: str) -> list[dict[str, Any]]:
    return [mark for mark in found["panels"][panel]["marks"] if mark["kind"] == kind]


def test_dynamics_are_those_of_two_tasks(draw: Draw) -> None:
    settings = settings_of("dynamics", 150)
    for own, found in zip(settings, draw("dynamics", settings), strict=True):
        run, (old, new, rest_old, rest_new) = simulators.two_tasks(**own), marks(found, 0, "line")
        for line, true in ((old, run.score_old), (new, run.score_new)):
            np.testing.assert_allclose(line["y"], true, EXACT, EXACT)
        assert rest_old["y"][0] == pytest.approx(np.exp(-run.equilibrium_loss_old), rel=EXACT)
        assert rest_new["y"][0] == pytest.approx(np.exp(-run.equilibrium_loss_new), rel=EXACT)
        assert bool(marks(found, 0, "text")) == run.diverges
        *rings, path = marks(found, 1, "line")
        np.testing.assert_allclose(np.transpose([path["x"], path["y"]]), run.path.clip(-100, 100), EXACT, EXACT)
        for start, H, o in ((0, run.hessian_old, run.optimum_old), (3, run.hessian_new, run.optimum_new)):
            for score, ring in zip(dynamics.SCORES, rings[start : start + 3], strict=True):
                loss = simulators.quadratic(np.transpose([ring["x"], ring["y"]]), H, o)
                np.testing.assert_allclose(np.exp(-loss), score, EXACT)
        (start_dot, goal, rest) = ([*dot["x"], *dot["y"]] for dot in marks(found, 1, "dots"))
        np.testing.assert_allclose(
            [start_dot, goal, rest], [run.optimum_old, run.optimum_new, run.equilibrium], EXACT, EXACT
        )


def test_the_cloud_has_the_draws_of_numpy(draw: Draw) -> None:
    """All ten seeds: some draws are of the tail, which one in some 4,000 is."""
    settings = [*settings_of("cloud", 10), *({"correlation": 0.3, "quantile": 0.5, "seed": s} for s in range(10))]
    for own, found in zip(settings, draw("cloud", settings), strict=True):
        true = simulators.importance_cloud(cloud.WEIGHTS, own["correlation"], own["seed"], quantile=own["quantile"])
        shown = [name for name in cloud.LOOKS if true.shares[name]]
        for name, dots in zip(shown, marks(found, 0, "dots"), strict=True):
            mine = true.group == simulators.KINDS.index(name)
            np.testing.assert_allclose(dots["x"], true.old[mine].clip(1e-4, 1e4), EXACT)
            np.testing.assert_allclose(dots["y"], true.new[mine].clip(1e-4, 1e4), EXACT)
        cuts = [rule["at"] for rule in marks(found, 0, "rule")]
        np.testing.assert_allclose(cuts, [true.threshold_old, true.threshold_new], EXACT)


def test_conflict_is_that_of_interference(draw: Draw) -> None:
    settings = settings_of("conflict", 300)
    for own, found in zip(settings, draw("conflict", settings), strict=True):
        step = simulators.interference(**own)
        ends = {arrow["label"].partition(" =")[0]: (arrow["x2"], arrow["y2"]) for arrow in marks(found, 0, "arrow")}
        for name, label in conflict.NAMES.items():
            np.testing.assert_allclose(
                ends.get(label, (0, 0)), step.updates[name], EXACT, EXACT if label in ends else 5e-7
            )
        changes = np.array(
            [[round(float(one[name]), 6) for name in conflict.NAMES] for one in (step.change_old, step.change_new)]
        )
        bars = np.array([np.add(bar["x1"], bar["x2"]) for bar in marks(found, 1, "rects")])
        reach = max(1e-6, np.abs(changes).max())
        np.testing.assert_allclose(bars * reach, changes, EXACT, EXACT)
