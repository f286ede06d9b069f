"""The right solution passes, and each usual mistake is named as what it is."""

from types import SimpleNamespace

import pytest
import torch

from forgetlab.remedies.schedules import LayerwiseRates
from forgetlab.teaching.exercises.paths import check_brake, check_layer_rates


def groups(layers, rates):
    return [{"params": own, "lr": rate} for own, rate in zip(layers.values(), rates, strict=True)]


def solved_rates(layers, lr, factor):
    made, rate = [], lr
    for own in reversed(layers.values()):
        made.insert(0, {"params": own, "lr": rate})
        rate /= factor
    return made


def test_the_rates_are_solved_and_those_of_the_library(bert) -> None:
    assert check_layer_rates(solved_rates)
    bert.add_head("new", ["a", "b"])
    named = [(n, p) for n, p in bert.named_parameters() if n.startswith(("backbone", "heads.new"))]
    group = {"names": [n for n, _ in named], "params": [p for _, p in named], "lr": 1e-3}
    made = LayerwiseRates(2.6).parameter_groups([group], SimpleNamespace(model=bert))
    layers = {str(i): group["params"] for i, group in reversed(list(enumerate(made)))}
    own = solved_rates(layers, 1e-3, 2.6)
    assert [group["lr"] for group in reversed(made)] == pytest.approx([group["lr"] for group in own])
    torch.optim.AdamW(own)  # an optimizer takes them


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda layers, lr, f: groups(layers, [lr / f**i for i in range(len(layers))]), "reversed"),
        (lambda layers, lr, f: groups(layers, [lr / f ** (len(layers) - i) for i in range(len(layers))]), "head is"),
        (lambda layers, lr, f: solved_rates(layers, lr, f)[1:], "missing"),
        (
            lambda layers, lr, f: groups(
                layers, [solved_rates(layers, lr, f)[max(i, 1)]["lr"] for i in range(len(layers))]
            ),
            "share the rate",
        ),
        (
            lambda layers, lr, f: groups(layers, [lr / max(1, f * (len(layers) - 1 - i)) for i in range(len(layers))]),
            "multiplied",
        ),
        (lambda layers, lr, f: groups(layers, [lr / f] * (len(layers) - 1) + [lr]), "same rate"),
        (
            lambda layers, lr, f: groups(layers, [lr * f ** (len(layers) - 1 - i) for i in range(len(layers))]),
            "faster",
        ),
    ],
)
def test_mistakes_in_the_rates_are_named(wrong, word) -> None:
    verdict = check_layer_rates(wrong)
    assert not verdict
    assert word in verdict.words


def solved_brake(scores, drop, patience):
    fallen = ["x" if score < scores[0] * (1 - drop) else "." for score in scores]
    found = "".join(fallen).find("x" * patience)
    return found + patience - 1 if found >= 0 else -1


def counted(fell, reset=True, back=False):
    def stops(scores, drop, patience):
        count = 0
        for i, score in enumerate(scores):
            if i and fell(scores, i, score, drop):
                count += 1
                if count >= patience:
                    return i + 1 - patience if back else i
            elif reset:
                count = 0
        return -1

    return stops


def below(scores, i, score, drop):
    return score < scores[0] - drop * scores[0]


def test_the_brake_is_solved() -> None:
    assert check_brake(solved_brake)
    assert solved_brake([0.85, 0.75], 0.05, 1) == 1


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (counted(lambda s, i, x, drop: x < s[i - 1] * (1 - drop)), "record before"),
        (counted(lambda s, i, x, drop: x > s[0] * (1 + drop)), "sign"),
        (counted(lambda s, i, x, drop: x > s[0] * (1 - drop)), "wrong way round"),
        (lambda s, drop, patience: next((i for i, x in enumerate(s) if x < s[0] * (1 - drop)), -1), "patience"),
        (counted(below, reset=False), "back to 0"),
        (counted(lambda s, i, x, drop: s[0] - x > drop), "points"),
        (counted(lambda s, i, x, drop: x < (1 - drop) * max(s[: i + 1])), "best score"),
        (counted(below, back=True), "began"),
        (counted(lambda s, i, x, drop: x <= (1 - drop) * s[0]), "exactly at the limit"),
    ],
)
def test_mistakes_in_the_brake_are_named(wrong, word) -> None:
    verdict = check_brake(wrong)
    assert not verdict
    assert word in verdict.words


@pytest.mark.parametrize("check", [check_layer_rates, check_brake])
def test_what_is_no_answer_is_said_in_words(check) -> None:
    assert "Expected a function, got int" in check(3).words
    assert "returns nothing" in check(lambda *_: None).words
    assert "ZeroDivisionError" in check(lambda *_: 1 / 0).words
    verdict = check(lambda *_: "stop")
    assert not verdict
    assert "expected" in verdict.words
