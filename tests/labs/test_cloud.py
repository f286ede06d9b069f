"""The simulated importance cloud, driven as a user would."""

import math
import re
from pathlib import Path

import pytest

from forgetlab.labs import cloud
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.views.quadrants import percent


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))


def alt(lab: Lab) -> str:
    return re.search(r'alt="([^"]*)"', lab.picture.value)[1]


def counted(state) -> dict[str, float]:
    """The share of each group, by going through the dots."""
    names = {(True, False): "old-critical", (False, True): "new-critical", (True, True): "shared"}
    counts = dict.fromkeys(("old-critical", "new-critical", "shared", "slack"), 0)
    for old, new in zip(state["old"], state["new"], strict=True):
        counts[names.get((old > state["cuts"][0], new > state["cuts"][1]), "slack")] += 1
    return {name: n / len(state["old"]) for name, n in counts.items()}


def test_shares_are_those_of_the_dots_and_expected_ones_of_the_formula() -> None:
    lab = cloud.show()
    assert lab.source == "simulated"
    for correlation, quantile in ((0.4, 0.5), (-0.6, 0.5), (0.9, 0.8)):
        lab.apply({"correlation": correlation, "quantile": quantile})
        state = lab.state
        # dots are kept to four digits: one that lies that close to a threshold may change sides
        assert counted(state) == pytest.approx(state["shares"], abs=2 / cloud.WEIGHTS)
        assert state["shares"] == pytest.approx(state["expected"], abs=0.04)
        if quantile == 0.5:
            assert state["expected"]["shared"] == pytest.approx(0.25 + math.asin(correlation) / (2 * math.pi))


def test_words_hold_the_shares() -> None:
    lab = cloud.show()
    lab.training["quantile"].value = 0.9
    for name, share in lab.state["shares"].items():
        assert f"{name} {percent(share)} (expected {percent(lab.state['expected'][name])})" in alt(lab)
    assert lab.state["message"] in lab.message.value


def test_seed_changes_the_dots_and_not_what_is_expected() -> None:
    lab = cloud.show()
    first = lab.state
    lab.training["seed"].value = 1
    assert lab.state["old"] != first["old"]
    assert lab.state["expected"] == first["expected"]


def test_either_end_of_every_slider_works() -> None:
    lab = cloud.show()
    for correlation in (-1.0, 1.0):
        for quantile in (0.05, 0.95):
            lab.apply({"correlation": correlation, "quantile": quantile})
            assert "error" not in lab.message.value
            assert sum(lab.state["shares"].values()) == pytest.approx(1)
    assert lab.state["shares"]["shared"] == pytest.approx(0.05)  # correlation 1: what matters to one matters to both


def test_settings_line_round_trip() -> None:
    lab, other = cloud.show(), cloud.show()
    lab.apply({"correlation": -0.8, "quantile": 0.8, "seed": 3})
    other.line.value = lab.line.value
    assert other.state["old"] == lab.state["old"]
    assert other.picture.value == lab.picture.value


@pytest.mark.parametrize(("share", "words"), [(0.5, "50 %"), (0.0996, "10 %"), (0.0994, "9.9 %"), (0.0, "0.0 %")])
def test_percent(share, words) -> None:
    assert percent(share) == words
