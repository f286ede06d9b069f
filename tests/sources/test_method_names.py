"""What is told of remedies without torch is what their constructors say, word for word."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.remedies.by_name import METHODS, make_methods, settings
from forgetlab.sources.method_names import HIDDEN, _remedies, _takes, check_methods

VALUES = ("-1", "0", "0.5", "1", "3", "1001", "1e400", "nan", "word", "")
LATER = {"direction", "estimator", "sampling", "targets", "task", "writer"}  # words that only the constructor knows


def said(check: object, *given: object) -> str:
    try:
        check(*given)  # type: ignore[operator]
    except ForgetlabError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", METHODS)
def test_a_remedys_settings_are_told_as_its_constructor_tells_them(name: str) -> None:
    takes = {key: value for key, value in _takes(_remedies().get(name)).items() if key not in HIDDEN}
    assert takes == settings(name)
    for key in (*takes, "lamm"):
        texts = [f"{name}:{key}={value}" for value in VALUES]
        refused = [said(make_methods, text, None) for text in texts]
        if key not in LATER:
            assert [said(check_methods, text) for text in texts] == refused
            assert any(refused), "no value of these is refused"


@pytest.mark.parametrize(
    "text", ["replay:ratio=7+l2sp:lam=-1", "l2sp:lam=-1+replay:ratio=7", "l2sp:lam", "l2ps", "", "ewc+", "lam=1"]
)
def test_the_first_slip_is_told_and_none_is_made_up(text: str) -> None:
    assert said(check_methods, text) == said(make_methods, text, None) != ""


def test_what_works_passes() -> None:
    for text in ("none", "ewc:strength=3+replay:ratio=0.3,memory=10", "l2sp:lam=1e+03", " l2sp:lam = 2", "lora:r=4"):
        check_methods(text)


def test_it_takes_no_torch() -> None:
    code = "import sys; from forgetlab.sources.method_names import check_methods as it; it('ewc'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "forgetlab.sources.method_names" in loaded
    assert {"torch", "numpy", "transformers"}.isdisjoint(loaded)
