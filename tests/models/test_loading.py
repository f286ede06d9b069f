"""What loading tells the process meanwhile."""

from __future__ import annotations

from threading import Thread

from transformers.utils.logging import ERROR, get_verbosity

from forgetlab.models.model import quiet_transformers


def test_models_are_loaded_one_at_a_time() -> None:
    """Two labs load in two threads: what transformers is told meanwhile is told to the whole process."""
    inside: list[int] = []

    def enter() -> None:
        with quiet_transformers():
            inside.append(get_verbosity())

    before = get_verbosity()
    with quiet_transformers():
        other = Thread(target=enter)
        other.start()
        other.join(0.2)
        assert not inside
    other.join()
    assert inside == [ERROR]
    assert get_verbosity() == before
