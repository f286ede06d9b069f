"""What all runs of a comparison are made from, as plain values: told apart before one of them is taken up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import forgetlab
from forgetlab.experiments.recipe import Recipe
from forgetlab.sources.shipped import inputs, sha256
from forgetlab.tasks.source_names import source_files


def identity(recipe: Recipe) -> dict[str, Any]:
    """What all runs of a sweep share: the recipe but for its methods and seed, the files, forgetlab's version."""
    content = {name: value for name, value in recipe.content().items() if name not in ("methods", "seed")}
    model = Path(recipe.model).expanduser()
    files = source_files((recipe.new, *recipe.watch))
    files += [path for path in sorted(model.glob("*")) if path.suffix != ".md"]  # a vocabulary is any kind of file
    shared = {"recipe": content, "files": {str(path): sha256(path) for path in files if path.is_file()}}
    return json.loads(json.dumps({**shared, "shipped data": inputs(), "forgetlab": forgetlab.__version__}))


def differences(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In words, what tells two identities apart."""
    old, new = ({**one.get("recipe", {}), "forgetlab": one.get("forgetlab")} for one in (there, wanted))
    told = [
        f"{name} was {_shown(old.get(name))}, now {_shown(value)}"
        for name, value in new.items()
        if old.get(name) != value
    ]
    was, now = there.get("files", {}), wanted["files"]
    told += [f"{name} has changed" for name in now if name in was and now[name] != was[name]]
    if not told and (was != now or there.get("shipped data") != wanted["shipped data"]):
        told.append("the data has changed")
    return told


def _shown(value: Any) -> str:
    return (", ".join(value) if isinstance(value, list) else str(value)) or "nothing"
