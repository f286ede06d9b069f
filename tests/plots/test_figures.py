"""Figures against numbers written down here; what is drawn is read back from the axes, never from an image hash."""

import io
import itertools
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from forgetlab import plots
from forgetlab.errors import ForgetlabError
from forgetlab.plots import style

TASKS = [
    {"name": "sentiment", "metric": "accuracy", "floor": None},
    {"name": "masked-lm", "metric": "perplexity", "floor": 2.1},
    {"name": "entities", "metric": "f1", "floor": None},
]
LONG = "replay:ratio=0.3+l2sp:lam=0.1"
SIX = ["none", "l2sp:lam=0.1", "replay:ratio=0.3", LONG, "frozen", "ewc:lam=100"]


def record(step, scores, status="running", drift=(0.5, 1.5)):
    tasks = {task["name"]: {task["metric"]: value, "loss": 1.0} for task, value in zip(TASKS, scores, strict=False)}
    layers = dict(zip(("embeddings", "layer 0"), drift, strict=True))
    return {"step": step, "scores": tasks, "status": status, "drift_per_layer": layers}


def run(method, *rows, end="done", drift=(0.5, 1.5)):
    """A run from one row of (accuracy, perplexity, f1) for each record, ten steps apart."""
    records = [record(10 * i, row, drift=drift) for i, row in enumerate(rows)]
    records[-1]["status"] = end
    return {"recipe": {"methods": method}, "records": records}


def results(*runs, tasks=TASKS):
    return {"tasks": tasks, "runs": list(runs)}


START = (0.5, 2.0, 0.8)
NONE = run("none", START, (0.7, 10.0, 0.6), (0.9, 40.0, 0.4), drift=(1.0, 3.0))
REPLAY = run("replay", START, (0.7, 2.2, 0.8), (0.86, 2.5, 0.76))
TWO = results(NONE, REPLAY)


def lines(ax):
    """The lines with the values of more than one record."""
    return [
        line for line in ax.lines if len(line.get_xdata()) > 1 and line.get_linestyle() != "None" and not floor(line)
    ]


def floor(line):
    return line.get_transform() != line.axes.transData


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_curves_have_a_panel_for_each_task_with_the_metric_as_its_unit():
    figure = plots.curves(TWO)
    assert isinstance(figure, Figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "new: sentiment",
        "watched: masked-lm",
        "watched: entities",
    ]
    assert [ax.get_ylabel() for ax in figure.axes] == ["accuracy (share)", "perplexity (choices)", "F1"]
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "log", "linear"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"step"}
    assert [len(lines(ax)) for ax in figure.axes] == [2, 2, 2]
    assert list(lines(figure.axes[1])[0].get_ydata()) == [2.0, 10.0, 40.0]
    assert list(lines(figure.axes[1])[0].get_xdata()) == [0, 10, 20]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["none", "replay"]


def test_the_floor_is_a_dashed_line_with_its_value():
    panel = plots.curves(TWO).axes[1]
    (line,) = [line for line in panel.lines if floor(line)]
    assert list(line.get_ydata()) == [2.1, 2.1]
    assert line.get_linestyle() == "--"
    assert "floor 2.10" in [text.get_text() for text in panel.texts]
    assert panel.get_ylim()[0] < 2.1


def test_several_seeds_are_a_mean_line_with_a_band_from_lowest_to_highest():
    runs = [run("none", (0.5, 2.0, 0.8), (0.6 + 0.1 * k, 2.0 + 3 * k, 0.7)) for k in range(3)]
    panel = plots.curves(results(*runs)).axes[1]
    (line,) = lines(panel)
    assert list(line.get_ydata()) == [2.0, 5.0]  # the mean of 2, 5 and 8
    band = panel.collections[0].get_paths()[0].vertices
    assert band[band[:, 0] == 10][:, 1].min() == 2.0
    assert band[band[:, 0] == 10][:, 1].max() == 8.0
    assert any("mean of 3 seeds" in text for text in texts(plots.curves(results(*runs))))


def test_a_missing_value_is_a_gap_behind_a_marked_last_point():
    bad = run("none", START, (0.7, 10.0, 0.6), (0.5, None, 0.0), end="diverged")
    first, second, _ = plots.curves(results(bad, REPLAY)).axes
    for panel, last in ((first, 0.7), (second, 10.0)):  # the accuracy of a diverged record means nothing
        assert np.isnan(lines(panel)[0].get_ydata()[-1])
        (cross,) = [line for line in panel.lines if line.get_marker() == "x"]
        assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (10, last)
        assert "diverged" in [text.get_text() for text in panel.texts]


def test_seeds_of_different_lengths_are_drawn_one_by_one():
    bad = run("none", START, (0.5, None, 0.0), end="diverged")
    panel = plots.curves(results(NONE, bad)).axes[0]
    assert sorted(len(line.get_xdata()) for line in lines(panel)) == [2, 3]
    assert not panel.collections


def test_a_run_without_any_value_still_gives_figures():
    bad = results(run("none", (0.5, None, 0.0), end="diverged"))
    for draw in plots.FIGURES.values():
        assert plots.png(draw(bad))
    assert "no point: none (diverged)" in plots.trade_off(bad).axes[0].get_xlabel()
    assert "diverged" in plots.alt_text("trade_off", bad)


def test_a_method_keeps_its_look_across_figures_and_sets_of_methods():
    def looks(figure):
        keys = figure.legends[0].legend_handles
        return {key.get_label(): (key.get_color(), key.get_linestyle(), key.get_marker()) for key in keys}

    six = results(*(run(method, START, START) for method in SIX))
    ours = looks(plots.curves(six))
    assert ours == looks(plots.drift(six))
    for column in zip(*ours.values(), strict=True):
        assert len(set(column[:5])) >= 4  # never by colour alone
    assert len(set(ours.values())) == len({look[0] for look in ours.values()}) == 6
    assert ours["l2sp:lam=0.1"] == looks(plots.curves(results(run("l2sp:lam=0.1", START, START))))["l2sp:lam=0.1"]
    assert looks(plots.curves(results(REPLAY, NONE)))["none"] == ours["none"]


def test_forgetting_is_one_minus_the_mean_kept_share():
    ax = plots.trade_off(TWO).axes[0]
    points = {text.get_text(): text.xy for text in ax.texts}
    # none: perplexity 2 → 40 keeps 0.05, F1 0.8 → 0.4 keeps 0.5; replay: 2 → 2.5 keeps 0.8, 0.8 → 0.76 keeps 0.95
    assert points["none"] == pytest.approx((1 - (0.05 + 0.5) / 2, 0.9))
    assert points["replay"] == pytest.approx((1 - (0.8 + 0.95) / 2, 0.86))
    assert "forgetting" in ax.get_xlabel()
    assert [ax.xaxis.get_major_formatter()(share) for share in (0, 0.025, 0.5)] == ["0 %", "2.5 %", "50 %"]
    assert "best corner" in ax.get_title(loc="left")
    assert "accuracy" in ax.get_ylabel()


def test_a_gain_does_not_make_up_for_a_loss_and_zero_has_nothing_to_lose():
    gain = run("none", (0.5, 4.0, 0.8), (0.9, 2.0, 0.4))
    zero = run("l2sp", (0.5, 4.0, 0.0), (0.9, 5.0, 0.4))
    points = {text.get_text(): text.xy[0] for text in plots.trade_off(results(gain, zero)).axes[0].texts}
    assert points == pytest.approx({"none": 1 - (1 + 0.5) / 2, "l2sp": 1 - 4 / 5})


def test_trade_off_bars_are_the_deviation_over_seeds():
    runs = [run("none", START, (0.8 + 0.1 * k, 4.0, 0.8)) for k in range(2)]
    ax = plots.trade_off(results(*runs)).axes[0]
    vertical = [c.get_segments()[0] for c in ax.collections if np.ptp(c.get_segments()[0][:, 1])]
    deviation = math.sqrt(2 * 0.05**2)
    assert vertical[0][:, 1] == pytest.approx([0.85 - deviation, 0.85 + deviation])


def test_less_perplexity_is_up_when_the_new_task_is_a_language_model():
    tasks = [{"name": "notices", "metric": "perplexity", "floor": 2.0}, *TASKS[1:]]
    runs = [run("none", (60.0, 2.0, 0.8), (3.0, 40.0, 0.4)), run("l2sp", (60.0, 2.0, 0.8), (9.0, 2.5, 0.8))]
    for one in runs:
        for r in one["records"]:
            r["scores"]["notices"] = {"perplexity": r["scores"].pop("sentiment")["accuracy"]}
    ax = plots.trade_off(results(*runs, tasks=tasks)).axes[0]
    bottom, top = ax.get_ylim()
    assert bottom > 9 > 3 > top > 0
    assert ax.get_yscale() == "log"


def test_names_in_the_trade_off_do_not_touch_each_other_nor_leave_the_axes():
    close = [run(m, START, (0.90 + 0.004 * i, 2.4 + 0.05 * i, 0.78)) for i, m in enumerate(SIX)]
    figure = plots.trade_off(results(*close))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(ax.bbox.x0 <= b.x0 and b.x1 <= ax.bbox.x1 and ax.bbox.y0 <= b.y0 and b.y1 <= ax.bbox.y1 for b in boxes)


def test_drift_has_a_dot_a_layer_and_method():
    ax = plots.drift(TWO).axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["embeddings", "layer 0"]
    assert [list(line.get_xdata()) for line in ax.lines] == [[1.0, 3.0], [0.5, 1.5]]
    assert "‖θ − θ₀‖" in ax.get_xlabel()
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first layer on top


def test_alt_text_says_the_numbers():
    text = plots.alt_text("curves", TWO)
    assert "Without a remedy, sentiment (accuracy) rises from 0.50 to 0.90" in text
    assert "masked-lm (perplexity) rises from 2.00 to 40.0 (×20.0)" in text
    assert "entities (f1) falls from 0.80 to 0.40" in text
    assert "With replay" in text
    assert "2.50 (×1.25)" in text
    text = plots.alt_text("trade_off", TWO)
    assert "Without a remedy: 0.90, 72% forgotten" in text  # 0.725 in floating point is a little less
    assert "With replay: 0.86, 12% forgotten" in text
    text = plots.alt_text("drift", TWO)
    assert "Without a remedy: layer 0 3.00, embeddings 1.00" in text


@pytest.mark.parametrize(
    ("kept", "said"),
    [  # the F1 of entities at the end; it starts at 0.8 and is all that is watched
        ({"none": 0.4, "ewc": 0.7, "replay": 0.6}, "With ewc (forgets least), "),
        ({"none": 0.4, "ewc": 0.7, "replay": 0.7}, "With ewc (none forgets less), "),
        ({"none": 0.8, "ewc": 0.8}, "With ewc (none forgets less), "),
        ({"none": 0.8, "ewc": 0.7, "replay": 0.6}, "With ewc (forgets least of the others), "),
        ({"ewc": 0.7, "replay": 0.4}, "With replay (forgets least of the others), "),
    ],
)
def test_alt_text_says_that_a_remedy_forgets_least_only_where_it_does(kept, said):
    tasks = [TASKS[0], TASKS[2]]
    runs = [run(method, START, (0.9, 2.0, end)) for method, end in kept.items()]
    assert said in plots.alt_text("curves", results(*runs, tasks=tasks))
    alone = plots.alt_text("curves", results(*runs, tasks=tasks[:1]))  # nothing is watched
    assert "least" not in alone
    assert "less" not in alone


def test_alt_text_of_a_diverged_run_and_of_an_unknown_figure():
    bad = results(run("none", START, (0.5, None, 0.0), end="diverged"))
    assert "sentiment (accuracy) starts at 0.50 and diverges" in plots.alt_text("curves", bad)
    with pytest.raises(ForgetlabError, match="did you mean 'curves'"):
        plots.alt_text("curve", TWO)


def test_a_list_of_records_is_one_run():
    figure = plots.curves(NONE["records"])
    assert [ax.get_ylabel() for ax in figure.axes] == ["accuracy (share)", "perplexity (choices)", "F1"]
    assert not figure.legends
    assert plots.alt_text("curves", NONE["records"]).startswith("In this run, sentiment")
    for draw in plots.FIGURES.values():  # the first record of a live run
        assert plots.png(draw(NONE["records"][:1]))


@pytest.mark.parametrize("nothing", [[], {"tasks": TASKS, "runs": []}])
def test_nothing_to_draw_is_said(nothing):
    for draw in plots.FIGURES.values():
        with pytest.raises(ForgetlabError, match="nothing to draw"):
            draw(nothing)


@pytest.mark.parametrize("kind", plots.FIGURES)
@pytest.mark.parametrize("methods", [["none"], [LONG], SIX], ids=["one", "long", "six"])
def test_every_text_lies_on_the_page_at_a_readable_size(kind, methods):
    tasks = [{**TASKS[0], "name": "customer_reviews_2024_final-version_$_of_$march"}, *TASKS[1:]]
    runs = [run(m, START, (0.6 + 0.05 * i, 3.0 + i, 0.7)) for i, m in enumerate(methods)]
    for one in runs:
        for r in one["records"]:
            r["scores"][tasks[0]["name"]] = r["scores"].pop("sentiment")
    figure = plots.FIGURES[kind](results(*runs, tasks=tasks))
    image = plots.png(figure)
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox()
    assert -0.02 <= drawn.x0 <= drawn.x1 <= width + 0.02
    assert -0.02 <= drawn.y0 <= drawn.y1 <= height + 0.02
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert min(sizes) * 110 / 72 * 360 / 704 > 8  # pixels, on a screen 360 px wide
    assert Image.open(io.BytesIO(image)).width == 704


def test_png_carries_the_alt_text_and_the_source_is_in_the_corner():
    image = Image.open(io.BytesIO(plots.png(plots.drift(TWO, source="cached"), alt="×2 of θ")))
    assert image.format == "PNG"
    assert image.text["Description"] == "×2 of θ"
    for draw, source in itertools.product(plots.FIGURES.values(), ("live", "simulated")):
        assert source in texts(draw(TWO, source=source))


def test_figures_leave_pyplot_and_the_readers_style_alone():
    with matplotlib.rc_context({"text.color": "white", "axes.labelcolor": "white", "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        figure = plots.curves(TWO)
        assert dict(matplotlib.rcParams) == before
    inks = {
        matplotlib.colors.to_hex(text.get_color()) for text in figure.findobj(matplotlib.text.Text) if text.get_text()
    }
    assert inks <= {plots.INK, plots.FAINT}
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (0.514, "points", "0.51"),
        (-0.154, "points", "−0.15"),
        (-0.001, "points", "0.00"),
        (2.312, "ratio", "2.31"),
        (40.0, "ratio", "40.0"),
        (402.3, "ratio", "402"),
        (999.9, "ratio", "1,000"),
        (12345.6, "ratio", "12,346"),
        (2.5e7, "ratio", "2.5e+07"),
        (None, "points", "–"),
        (float("nan"), "ratio", "–"),
    ],
)
def test_number(value, scale, text):
    assert plots.number(value, scale) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2, "2"), (0.5, "0.5"), (1e4, "10,000"), (1e5, "10⁵"), (2e6, "2·10⁶"), (1e15, "10¹⁵"), (1e-5, "10⁻⁵")],
)
def test_numbers_at_a_log_axis(value, text):
    assert style.at_log(value) == text


def test_wrapped_loses_no_letter_and_keeps_to_the_width():
    assert style.wrapped(LONG, 17) == ["replay:ratio=0.3", "+l2sp:lam=0.1"]
    assert style.wrapped("masked-lm", 17) == ["masked-lm"]
    for width in (5, 9, 24):
        broken = style.wrapped("a_very+long,name" + "x" * 40, width)
        assert max(map(len, broken)) <= width
        assert "".join(broken) == "a_very+long,name" + "x" * 40


def test_the_direction_and_the_scale_are_the_tasks_own():
    words = {"name": "sentiment", "metric": "word_perplexity", "scale": "ratio", "higher_is_better": False}
    tasks = [words, {**TASKS[2], "higher_is_better": False, "scale": "points"}]
    records = [
        {
            "step": step,
            "scores": {"sentiment": {"word_perplexity": value}, "entities": {"f1": loss}},
            "status": status,
            "drift_per_layer": {"embeddings": 0.0},
        }
        for step, value, loss, status in ((0, 90.0, 0.2, "running"), (10, 30.0, 0.4, "done"))
    ]
    content = results({"recipe": {"methods": "none"}, "records": records}, tasks=tasks)
    ax = plots.trade_off(content).axes[0]
    assert ax.yaxis_inverted()
    assert ax.get_yscale() == "log"
    assert [ax.get_yscale() for ax in plots.curves(content).axes] == ["log", "linear"]
    (line,) = (line for line in ax.lines if len(line.get_xdata()) == 1)
    assert line.get_xdata()[0] == pytest.approx(0.5)  # a loss that doubled: half of it is kept
