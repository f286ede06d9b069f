"""A remedy is known by its name as soon as its module lies among the others."""

import sys
from pathlib import Path

import pytest

from forgetlab import remedies
from forgetlab.remedies.by_name import METHODS, found
from forgetlab.training.method import Method

TOY = """
from forgetlab.remedies.regularizers import L2SP
from forgetlab.training.method import Method

class Base(Method):
    pass

class Toy(Base):
    name = "toy"
    family = "gradients"
"""


def test_a_module_in_the_folder_is_all_that_a_new_remedy_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(remedies, "__path__", [*remedies.__path__, str(tmp_path)])
    try:
        known = found()
    finally:
        sys.modules.pop("forgetlab.remedies.toy", None)
    assert known.keys() - METHODS.keys() == {"toy"}  # neither the class beside it nor one that it imports
    assert {name: known[name] for name in METHODS} == METHODS
    assert known["toy"].family == "gradients"


def test_every_remedy_of_the_room_has_its_name() -> None:
    shown = {value for value in vars(remedies).values() if isinstance(value, type) and issubclass(value, Method)}
    assert set(METHODS.values()) == shown | {Method}
    assert all(METHODS[remedy.name] is remedy for remedy in shown)
    assert list(METHODS)[0] == "none"
