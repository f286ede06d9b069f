"""What a user writes for a model: told right from wrong by its name and folder alone, without torch."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from forgetlab.errors import ForgetlabError, unknown
from forgetlab.sources.files import file_path
from forgetlab.sources.shipped import check_shipped, data_folder


def shipped_models() -> list[str]:
    """Names of the checkpoints that come with forgetlab.

    >>> shipped_models()
    ['tiny-bert', 'tiny-gpt']
    """
    return sorted(path.parent.name for path in (data_folder() / "models").glob("*/config.json"))


def model_folder(name: str) -> Path | None:
    """The folder of a shipped model or of one on this machine; None for a name that may be one of the hub.

    Raises ForgetlabError for a folder that is missing or no checkpoint, and for a slip in a shipped name.
    """
    shipped = shipped_models()
    if name in shipped:
        folder = data_folder() / "models" / name
        check_shipped(folder)
        return folder
    if (place := file_path(name)).is_dir():
        if not (place / "config.json").is_file():
            raise ForgetlabError(f"{name} is not a transformers checkpoint: it has no config.json")
        return place
    if name.startswith((".", "/", "~")) or name.partition("@")[0].count("/") > 1:
        raise ForgetlabError(f"there is no folder {name}")
    if "/" not in name and get_close_matches(name, shipped, n=1, cutoff=0.7):
        raise unknown("model", name, shipped)  # a slip of the pen: do not ask the hub for it
    return None
