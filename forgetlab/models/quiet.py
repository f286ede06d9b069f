"""transformers without its progress bars and advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_ONE = RLock()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Only errors, no progress bars; one thread at a time, as these settings are those of the whole process."""
    from transformers.utils import logging

    with _ONE:
        verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if shown:
                logging.enable_progress_bar()
