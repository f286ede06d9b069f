"""Where two models differ, as pictures: read back from the axes."""

import numpy as np
import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.plots import inside, png

FOUND = {
    "layers": ["embeddings", "layer 0", "layer 1", "lm head"],
    "kinds": ["embeddings", "norm", "query", "attention out", "head"],
    "relative": [
        [0.5, 0.01, None, None, None],
        [None, 0.002, 0.123, 0.3, None],
        [None, 0.0, 0.04, 0.2, None],
        [None, None, None, None, 0.1],
    ],
    "depths": ["embeddings", "layer 0", "layer 1"],
    "cka": {"entities": [1.0, 0.9, 0.4], "masked-lm": [1.0, None, 0.2]},
    "probes": {"entities": {"before": [0.5, 0.6, 0.9], "frozen": [0.5, 0.6, 0.3], "refitted": [0.5, 0.6, 0.8]}},
}


def test_the_map_has_a_number_in_each_cell() -> None:
    ax = inside.drift_map(FOUND).axes[0]
    cells = {(round(t.get_position()[0]), round(t.get_position()[1])): t.get_text() for t in ax.texts}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["norm", "query", "attn\nout", "its\nown"]
    assert [t.get_text() for t in ax.get_yticklabels()] == FOUND["layers"]
    assert cells == {
        (0, 0): "1.0",
        (3, 0): "50",
        (0, 1): "0.2",
        (1, 1): "12",
        (2, 1): "30",
        (0, 2): "0.0",
        (1, 2): "4.0",
        (2, 2): "20",
        (3, 3): "10",
    }
    assert ax.get_ylim()[0] < ax.get_ylim()[1]  # the first layer below
    dark = [t.get_text() for t in ax.texts if t.get_color() == "white"]
    assert "50" in dark
    assert "0.2" not in dark


def test_a_panel_for_each_task_with_its_lines() -> None:
    figure = inside.by_depth(FOUND)
    first, second = figure.axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == ["entities", "masked-lm"]
    drawn = {line.get_label(): [*line.get_ydata()] for line in first.lines}
    assert drawn["CKA with before"] == FOUND["cka"]["entities"]
    assert drawn["probe fitted before"] == FOUND["probes"]["entities"]["frozen"]
    assert drawn["probe fitted anew"] == FOUND["probes"]["entities"]["refitted"]
    assert np.isnan(second.lines[0].get_ydata()[1])
    assert [t.get_text() for t in first.get_xticklabels()] == ["emb.", "0", "1"]
    assert len(figure.legends[0].get_texts()) == 4
    assert png(figure).startswith(b"\x89PNG")


def test_the_words_hold_the_numbers() -> None:
    assert inside.drift_words(FOUND) == (
        "Weights moved most, in % of their norm before: embeddings its own 50 %, layer 0 attention out 30 %, layer 1 "
        "attention out 20 %; least: layer 1 norm 0.0 %."
    )
    assert inside.depth_words(FOUND) == (
        "Features of the last layer, after against before. entities: CKA 0.40, a probe reads 0.90 before, 0.30 after, "
        "0.80 when fitted anew; masked-lm: CKA 0.20."
    )


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ForgetlabError, match="no weights were compared"):
        inside.drift_map({"layers": ["other"], "kinds": ["other"], "relative": [[None]]})
    with pytest.raises(ForgetlabError, match="no task has texts"):
        inside.by_depth({"cka": {}, "probes": {}, "depths": []})
