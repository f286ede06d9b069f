"""The conflict lab, driven as a user would; its numbers against two explicit losses."""

import re
from pathlib import Path

import numpy as np
import pytest

from forgetlab.labs import conflict
from forgetlab.labs.kit.base import Lab


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))


def alt(lab: Lab) -> str:
    return re.search(r'alt="([^"]*)"', lab.picture.value)[1]


def loss(theta: np.ndarray, gradient: np.ndarray, curvature: float) -> float:
    """A loss with this gradient at 0 and the same curvature in every direction."""
    return float(gradient @ theta + 0.5 * curvature * theta @ theta)


@pytest.mark.parametrize("angle", [0, 30, 90, 120, 180])
@pytest.mark.parametrize(("curvature", "rate"), [(1.0, 0.1), (4.0, 1.0)])
def test_numbers_match_a_step_on_two_losses(angle, curvature, rate) -> None:
    lab = conflict.show()
    lab.apply({"angle": angle, "curvature": curvature, "rate": rate})
    old, new = np.array([1.0, 0.0]), np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    off_old = new - min(0.0, float(new @ old)) * old
    off_new = old - min(0.0, float(new @ old)) * new
    updates = {"plain": new, "agem": off_old, "pcgrad": off_old + off_new, "joint": old + new}
    for name, update in updates.items():
        np.testing.assert_allclose(lab.state["updates"][name], update, atol=1e-6)
        assert lab.state["change_old"][name] == pytest.approx(loss(-rate * update, old, curvature), abs=1e-6)
        assert lab.state["change_new"][name] == pytest.approx(loss(-rate * update, new, curvature), abs=1e-6)


def test_break_even_is_where_the_plain_step_stops_helping() -> None:
    lab = conflict.show()
    lab.apply({"angle": 60, "curvature": 2.0})
    even = lab.state["break_even"]
    assert f"above η = {even:.2g}" in alt(lab)
    old, new = np.array([1.0, 0.0]), np.array([0.5, 0.75**0.5])
    assert loss(-even * new, old, 2.0) == pytest.approx(0, abs=1e-6)
    assert loss(-0.9 * even * new, old, 2.0) < 0 < loss(-1.1 * even * new, old, 2.0)


def test_words() -> None:
    lab = conflict.show()
    lab.buttons["opposed"].click()
    assert "A-GEM: old ±0, new ±0" in alt(lab)
    assert "harms the old task at any rate" in alt(lab)
    lab.buttons["at right angles"].click()
    assert "harms the old task at any rate" in alt(lab)  # the curvature alone
    lab.training["curvature"].value = 0.0
    assert lab.state["break_even"] is None
    assert "harms the old task at no rate" in alt(lab)
    assert lab.state["message"] in lab.message.value


def test_either_end_of_every_slider_works() -> None:
    lab = conflict.show()
    for angle in (0, 180):
        for curvature in (0.0, 4.0):
            for rate in (0.01, 10**0.5):
                lab.apply({"angle": angle, "curvature": curvature, "rate": rate})
                assert "error" not in lab.message.value
                assert "plain: old" in alt(lab)


def test_settings_line_round_trip() -> None:
    lab, other = conflict.show(), conflict.show()
    lab.apply({"angle": 135, "curvature": 0.5, "rate": 1.0})
    other.line.value = lab.line.value
    assert other.state == lab.state
