"""Simulated dynamics, driven as a user would; its numbers against a plain loop of gradient steps."""

import re
from pathlib import Path

import numpy as np
import pytest

from forgetlab.labs import dynamics
from forgetlab.labs.kit.base import Lab


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))


def alt(lab: Lab) -> str:
    return re.search(r'alt="([^"]*)"', lab.picture.value)[1]


def slow(rate: float, decay: float, overlap: float, lam: float) -> np.ndarray:
    """The path by one gradient step after another, distance 2 and slack 0.05."""
    u = np.array([overlap**0.5, (1 - overlap) ** 0.5])
    H_old, H_new = (0.95 * np.outer(v, v) + 0.05 * np.eye(2) for v in (np.array([1.0, 0.0]), u))
    theta, path = np.zeros(2), [np.zeros(2)]
    for step in range(dynamics.STEPS):
        theta = theta - rate * (1 - decay) ** step * (H_new @ (theta - 2 * u) + lam * H_old @ theta)
        path.append(theta)
    return np.array(path)


def test_opens_simulated_with_a_picture_and_no_train_button() -> None:
    lab = dynamics.show()
    assert lab.source == "simulated"
    assert "Train" not in lab.buttons
    assert alt(lab) == lab.state["message"]
    assert lab.state["message"] in lab.message.value
    # the loss that is left of the old task: ½·2²·(0.05 + 0.95·0.5) = 1.05
    assert lab.state["equilibrium_old"] == pytest.approx(np.exp(-1.05), abs=1e-4)
    assert lab.state["equilibrium_new"] == 1
    assert "old task 1.00 → 0.35" in alt(lab)


@pytest.mark.parametrize(
    "settings",
    [
        {"rate": 0.1, "decay": 0.0, "overlap": 0.5, "lam": 0.0},
        {"rate": 0.316, "decay": 0.05, "overlap": 0.9, "lam": 1.0},
        {"rate": 0.02, "decay": 0.2, "overlap": 0.0, "lam": 4.0},
    ],
)
def test_numbers_match_a_plain_loop(settings) -> None:
    lab = dynamics.show()
    lab.apply(settings)
    path = slow(**settings)
    np.testing.assert_allclose(lab.state["path"], path, atol=1e-4)
    old = np.exp(-0.5 * (path[:, 0] ** 2 + 0.05 * path[:, 1] ** 2))
    np.testing.assert_allclose(lab.state["score_old"], old, atol=1e-4)


def test_a_pull_of_one_ends_where_the_sum_of_both_losses_is_least() -> None:
    lab = dynamics.show()
    lab.buttons["λ = 1: joint training"].click()
    at = np.array(lab.state["equilibrium"])
    u = np.array([0.5, 0.5]) ** 0.5
    H_old, H_new = (0.95 * np.outer(v, v) + 0.05 * np.eye(2) for v in (np.array([1.0, 0.0]), u))
    np.testing.assert_allclose(H_old @ at + H_new @ (at - 2 * u), 0, atol=1e-3)


def test_says_when_it_diverges() -> None:
    lab = dynamics.show()
    assert "iverges" not in alt(lab)
    lab.buttons["too fast"].click()
    assert lab.state["diverges"]
    assert alt(lab).startswith("Diverges: above the rate 2.00")
    assert alt(lab) in lab.message.value
    lab.training["decay"].value = 0.2  # the same rate, decaying: only the first steps overshoot
    assert not lab.state["diverges"]
    assert "first steps are above the stable rate" in alt(lab)
    lab.apply({"decay": 0.0, "rate": 0.5, "lam": 10.0})  # a stiff pull diverges at a rate that is fine without
    assert "Diverges" in alt(lab)


def test_either_end_of_every_slider_works() -> None:
    lab = dynamics.show()
    for name, control in lab.training.items():
        low, high = (10**control.min, 10**control.max) if name == "rate" else (control.min, control.max)
        for value in (low, high):
            lab.reset()
            control.value = value
            assert "error" not in lab.message.value
            assert lab.state["settings"][name] == float(f"{control.value:.6g}")  # as its line says it
            assert np.isfinite(lab.state["path"]).all()


def test_settings_line_round_trip() -> None:
    lab, other = dynamics.show(), dynamics.show()
    lab.apply({"rate": 1.0, "overlap": 0.25, "lam": 2.5})
    other.line.value = lab.line.value
    assert other.state["score_old"] == lab.state["score_old"]
    other.line.value = "forgetlab 1 dynamics: lam=11"
    assert "lam lies between 0 and 10" in other.message.value
    assert other.settings() == lab.settings()


def test_rings_are_lines_of_equal_loss() -> None:
    hessian, optimum = np.array([[1.0, 0.3], [0.3, 0.4]]), np.array([0.5, -1.0])
    error = dynamics.ellipse(hessian, optimum, 0.7) - optimum[:, None]
    np.testing.assert_allclose(0.5 * (error * (hessian @ error)).sum(axis=0), 0.7)
