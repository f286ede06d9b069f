"""Every kind of picture on a small screen."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from forgetlab import labs
from forgetlab.experiments import results
from forgetlab.labs.kit import shown
from forgetlab.teaching.page import Place
from tests.labs.conftest import SHIPPED

SEEN = 292  # px: how wide a picture is in JupyterLab on a screen 400 px wide
encoded = shown.encoded


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pull", "frontier", "matrix", "inside", "scatter", "conflict", "own", "reward"])
def test_a_lab_on_a_small_screen(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All words of its picture lie on the page, 10 px high or more, and no panel or legend on another."""
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))
    drawn: list[Figure] = []
    monkeypatch.setattr(shown, "encoded", lambda figure, alt: drawn.append(figure) or encoded(figure, alt))
    lab = labs.show(name, driver="inline")
    wide = lab.picture.value
    assert drawn[-1].bbox.width == 704
    lab.width.value = SEEN
    assert lab.picture.value != wide
    figure = drawn[-1]
    width, height = figure.get_size_inches()
    assert figure.bbox.width == pytest.approx(462)
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()]
    assert min(sizes) * figure.dpi / 72 * SEEN / figure.bbox.width >= 10
    box = figure.get_tightbbox()
    assert -0.02 <= box.x0 <= box.x1 <= width + 0.02
    assert -0.02 <= box.y0 <= box.y1 <= height + 0.02
    boxes = [ax.bbox for ax in figure.axes if ax.axison]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    lab.width.value = 704
    assert drawn[-1].bbox.width == 704
    for page in (1112, 848):  # in JupyterLab at 1280 × 720, without its file browser and with it
        lab.width.value = page
        check_beside(drawn[-1], Place.of(page, lab._many))
    lab.close()


def check_beside(figure: Figure, place: Place) -> None:
    """It fills its room across and is no higher, all words are 11 px or more, and no panel lies on another."""
    width, height = figure.get_size_inches()
    room = place.room
    assert room
    assert width == pytest.approx(room[0])
    assert height <= room[1] + 1e-9
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(sizes) * place.across / width / 72 >= 11
    panels = [ax.bbox for ax in figure.axes if ax.axison]
    boxes = [*panels, *(legend.get_window_extent() for legend in figure.legends)]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert min(box.height for box in panels) * place.across / figure.bbox.width >= 28


def test_a_lab_says_what_a_run_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Above its picture, of the record that is shown, with where it comes from."""
    monkeypatch.setattr(results, "shipped_folder", SHIPPED)
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path))
    lab = labs.show("watch", driver="inline")
    lab.width.value = 1112
    head = re.sub("<[^>]*>", "|", lab.picture.value.partition("<img")[0])
    first, last = (lab.state["records"][i]["scores"] for i in (0, -1))
    accuracy = [f"{scores['sentiment']['accuracy']:.2f}" for scores in (first, last)]
    times = last["masked-lm"]["perplexity"] / first["masked-lm"]["perplexity"]
    assert f"sentiment accuracy {accuracy[0]} → {accuracy[1]} " in re.sub(r"\|+", " ", head)
    assert f"×{times:.2f}" in head
    assert "cached" in head
    lab.close()
