"""Of every lab: the picture, its label and its words are of one result, before, while and after a run is prepared."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from forgetlab import labs
from forgetlab.experiments import results
from forgetlab.labs import own, reward
from forgetlab.labs.kit import base
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.settings import to_line
from forgetlab.labs.kit.shown import Shown
from tests.labs.conftest import SHIPPED
from tests.labs.test_labels import caption

LISTS = ("frontier", "anchor", "dreams", "freeze", "mix", "pull")  # they show all runs so far
SOURCES = ("live", "cached", "simulated")


@pytest.fixture(autouse=True)
def _shipped_and_an_empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    monkeypatch.setattr(base, "Shown", Seen)
    for page in (own, reward):  # it holds a figure: its words in place of its PNG
        monkeypatch.setattr(page, "within", lambda figure, *_: "".join(f"<b>{one}</b>" for one in flat(seen(figure))))
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))


class Seen(Shown[Any]):
    """Notes what a lab's own drawing was asked for, and what it gave."""

    def __init__(self, name: str, draw: Any, *rest: Any) -> None:
        self.asked, self.given = list[Any](), list[Any]()

        def noted(*asked: Any) -> Any:
            drawn, alt = draw(*asked)
            self.asked.append(asked)
            self.given.append((seen(drawn), alt))
            return drawn, alt

        super().__init__(name, noted, *rest)


def seen(drawn: Figure | str) -> Any:
    """The words of a figure, and its lines and bars; or the words of a page."""
    if isinstance(drawn, str):
        return re.findall(r">([^<]+)<", drawn)
    texts = [*drawn.texts, *(text for legend in drawn.legends for text in legend.get_texts())]
    for ax in drawn.axes:  # all but the numbers at the axes, which come with the drawing
        texts += [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title]  # type: ignore[attr-defined]
    words = sorted(text.get_text() for text in texts if text.get_text() and text.get_visible())
    lines = [
        np.asarray(line.get_xydata()).tobytes().hex() for ax in drawn.axes for line in ax.lines if line.get_visible()
    ]
    bars = [bar.get_bbox().bounds for ax in drawn.axes for bar in ax.patches if isinstance(bar, Rectangle)]
    return words, sorted(lines), bars


def flat(what: Any) -> list[Any]:
    return [one for part in what for one in flat(part)] if isinstance(what, list | tuple) else [what]


def labelled(what: Any) -> list[str]:
    """The sources that stand in a picture."""
    words = what if isinstance(what, list) else what[0]
    return [source for source in SOURCES if any(text.split("   ")[0] == source for text in words)]


def another(value: Any) -> Any:
    """The same plain value with other numbers in it."""
    if isinstance(value, float):
        return value * 0.9
    if isinstance(value, dict):
        return {key: another(own) for key, own in value.items()}
    return [another(own) for own in value] if isinstance(value, list) else value


def moved(lab: Lab[Any]) -> None:
    """One training control has another value, at which no run is recorded."""
    if not lab.instant:
        lab.training["seed"].value = 9
        if lab.name == "own":  # a move only checks what must be there
            lab.buttons["Train"].click()
        return
    control = next(iter(lab.training.values()))
    if hasattr(control, "options"):
        control.value = next(one for one in control.options if one != control.value)
    else:
        control.value = control.value * 0.1 if hasattr(control, "base") else control.max
    assert lab.settings() != lab._start


@pytest.mark.parametrize("name", labs.LABS)
def test_the_label_the_words_and_the_data_are_of_one_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = labs.show(name, driver="inline")
    drawn: Any = lab._shown
    opening = lab.settings()
    before = "simulated" if lab.instant else "cached"
    first = lab.state
    assert "error" not in lab.message.value
    assert (labelled(drawn.given[-1][0]), caption(lab)) == ([before], "")
    shown = lab.picture.value

    real, while_prepared = lab._work, list[tuple[str, str]]()

    def work(settings: dict[str, Any]) -> Any:
        while_prepared.append((caption(lab), lab.picture.value))
        yield from real(settings) if lab.instant else [another({k: v for k, v in first.items() if k != "settings"})]

    lab._work = work
    moved(lab)
    was = f"Not of the present settings: {before}, {to_line(name, opening).partition(': ')[2]}"
    assert len(while_prepared) == 1
    if not lab.instant:  # a simulation's next picture is there before a page could show this one
        assert while_prepared[0][0] == was
        assert while_prepared[0][1].endswith(f"{shown}</div>")
        assert 'style="opacity:0.35"' in while_prepared[0][1]
    after = "simulated" if lab.instant else "live"
    assert (lab.source, caption(lab), labelled(drawn.given[-1][0])) == (after, "", [after])
    state, _, settings, source = drawn.asked[-1]
    assert (state["settings"], source) == (lab.settings(), after)
    assert {key: settings[key] for key in lab.settings()} == lab.settings()
    assert lab.line.value == to_line(name, lab.settings())
    assert drawn.given[-1][0] != drawn.given[0][0]  # other numbers make another picture

    with monkeypatch.context() as patch:
        patch.setattr(results, "shipped_folder", lambda: SHIPPED() / "none")
        patch.setenv("FORGETLAB_CACHE", str(SHIPPED() / "none"))
        fresh = labs.show(name, driver="inline")._shown._draw  # with nothing in its figure of the first result
    if name in LISTS:
        fresh(*drawn.asked[0])
    again, alt = fresh(*drawn.asked[-1])
    assert (seen(again), alt) == drawn.given[-1]
    assert alt in unescape(lab.picture.value)

    lab._controls.move(opening)
    lab._compute()
    assert lab.source == before
    assert (labelled(drawn.given[-1][0]), caption(lab)) == ([before], "")
    assert drawn.asked[-1][0]["settings"] == opening
