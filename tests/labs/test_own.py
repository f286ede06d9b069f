"""Bring your own: models, data and methods as a practitioner types them."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from forgetlab.experiments import recipes
from forgetlab.labs import own
from forgetlab.labs.kit.base import Lab
from forgetlab.labs.kit.settings import from_line, to_line
from tests.conftest import small_model

MOVIES = [("great", "good"), ("dull", "bad"), ("witty", "good"), ("boring", "bad")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model of one's own."""
    path = tmp_path_factory.mktemp("models") / "mine"
    small_model().save(path)
    return str(path)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Forty reviews with their labels; the name is no HTML."""
    path = tmp_path / "<b>movies, old.csv"
    rows = [
        f"the {what} number {i} was {word} .,{label}"
        for i, what in enumerate(["film", "song", "play"] * 4)
        for word, label in MOVIES
    ]
    path.write_text("\n".join(["text,label", *rows[:40]]))
    return path


def fill(lab: Lab, **values: object) -> Lab:
    for name, value in values.items():
        lab.training[name].value = value
    return lab


def said(lab: Lab) -> str:
    return unescape(re.sub("<[^>]*>", "", lab.message.value))


def shown(lab: Lab) -> str:
    return unescape(re.sub("<[^>]*>", " ", lab.picture.value))


def test_a_model_and_a_file_of_ones_own(folder: str, reviews: Path) -> None:
    lab = fill(own.show(driver="inline"), model=folder, new=str(reviews), watch="masked-lm", steps=20, methods="l2sp")
    assert said(lab) == "Press Train."  # a form is filled in: nothing trains before it is complete
    assert lab.state is None
    lab.buttons["Train"].click()
    first, last = lab.state["records"][0], lab.state["records"][-1]
    assert last["step"] == 20
    name = lab.state["tasks"][0]["name"]
    before, after = (r["scores"][name]["accuracy"] for r in (first, last))
    assert f"{name} {before:.2f} → {after:.2f}, masked-lm" in said(lab)
    assert re.search(rf"accuracy \(share\)\s+{before:.2f}\s+{after:.2f}\s", shown(lab))
    ratio = last["scores"]["masked-lm"]["perplexity"] / first["scores"]["masked-lm"]["perplexity"]
    assert f"×{ratio:#.3g}" in shown(lab)
    assert lab.state["batch_size"] == min(32, len(train_side(reviews)))
    assert "l2sp: " in shown(lab)
    assert "<b>movies" not in lab.picture.value  # a file's name is text
    json.dumps(lab.state, allow_nan=False)

    other = own.show(driver="inline")
    other.line.value = lab.line.value  # the name with its comma stands in quotes
    assert other.settings() == lab.settings()
    assert other.source == "cached"
    reviews.write_text(reviews.read_text().replace("film", "novel"))
    again = own.show(driver="inline")
    again.line.value = lab.line.value
    assert said(again) == "Press Train."  # another file: nothing is kept for it


def train_side(path: Path) -> list[str]:
    from forgetlab import sources

    return list(sources.split(sources.read(path), test=0.2)[0].texts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"new": "sentimant"}, "did you mean 'sentiment'?"),
        ({"new": "{tmp}/reviws.csv"}, "did you mean reviews.csv?"),
        ({"new": "/nowhere/at/all.csv"}, "there is no folder"),
        ({"new": "{tmp}"}, "is a folder"),
        ({"new": "x/" * 5000}, "10,000 characters"),
        ({"watch": "masked-lm, entitys"}, "did you mean 'entities'?"),
        ({"watch": "{tmp}/absent.txt"}, "no file"),
        ({"methods": "ewx"}, "did you mean 'ewc'?"),
        ({"methods": "ewc:lam=-1"}, "lam must be"),
    ],
)
def test_what_is_not_there_is_said_at_once(tmp_path: Path, values: dict[str, str], message: str) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\na,b\n")
    values = {name: value.replace("{tmp}", str(tmp_path)) for name, value in values.items()}
    lab = fill(own.show(driver="inline"), **values)
    assert message in said(lab)
    assert values.items() <= lab.settings().items()  # what was typed stays
    assert lab.state is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "tiny-brt"}, "did you mean 'tiny-bert'?"),
        ({"model": "/nowhere/at/all"}, "there is no folder /nowhere/at/all"),
        ({"watch": "masked-lm:lyrics"}, "unknown register 'lyrics'"),
        ({"watch": "sentiment"}, "two tasks have the same name"),
        ({"watch": "causal-lm"}, "needs a causal language model"),
        ({"new": "cloze"}, "has no training data"),
    ],
)
def test_what_only_loading_shows_is_said_by_train(values: dict[str, str], message: str, folder: str) -> None:
    lab = fill(own.show(driver="inline"), **{"model": folder, "watch": "masked-lm", "steps": 20, **values})
    assert said(lab) == "Press Train."
    lab.buttons["Train"].click()
    assert message in said(lab)
    assert values.items() <= lab.settings().items()


def test_after_an_error_the_lab_goes_on(folder: str) -> None:
    lab = fill(own.show(driver="inline"), model="tiny-brt", watch="masked-lm", steps=20)
    lab.buttons["Train"].click()
    assert "did you mean 'tiny-bert'" in said(lab)
    fill(lab, model=folder)
    lab.buttons["Train"].click()
    assert "After 20 steps" in said(lab)


def test_an_error_says_that_the_picture_is_of_an_earlier_run(folder: str) -> None:
    lab = fill(own.show(driver="inline"), model=folder, watch="masked-lm", steps=20, new="sentimant")
    assert "earlier" not in said(lab)  # there is no picture yet
    fill(lab, new="sentiment")
    lab.buttons["Train"].click()
    fill(lab, new="sentimant")
    assert "did you mean 'sentiment'? What is shown below is an earlier run." in said(lab)
    fill(lab, new="sentiment", model="tiny-brt")
    lab.buttons["Train"].click()
    assert said(lab).endswith("What is shown below is an earlier run.")


def test_the_default_click_and_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(own, "prepare", lambda run: loaded.append(run) or recipes.prepare(run))
    lab = fill(own.show(driver="inline"), steps=20)
    lab.buttons["Train"].click()
    assert [task["name"] for task in lab.state["tasks"]] == ["sentiment", "masked-lm", "entities"]
    assert "After 20 steps" in said(lab)
    lab.buttons["replay"].click()
    assert lab.settings()["methods"] == "replay:ratio=0.3"
    assert said(lab) == "Press Train."
    lab.buttons["Train"].click()
    assert len(lab._shown.old) == 1
    assert len(loaded) == 1  # the model and the tasks are kept
    lab.buttons["plain"].click()
    assert lab.source == "cached"


def test_texts_in_a_settings_line() -> None:
    lab = own.show(driver="inline")
    for text in ("a, b", ' "quoted", x=1', "a=b", "", "c:\\data\\x.csv", "two\nlines, here", "naïve – ü"):
        settings = lab.settings() | {"new": text}
        assert from_line("own", to_line("own", settings), lab.training) == settings
    lab.line.value = 'forgetlab 1 own: new="a, b'
    assert "no closing quote. Nothing was changed." in said(lab)
