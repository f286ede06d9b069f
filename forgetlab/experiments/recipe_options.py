"""The recipe's fields as options of a command: `compare` and `forecast` take the same ones. Loads no torch."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace

from forgetlab.experiments.recipe import Recipe

RECIPE_OPTIONS = [one for one in fields(Recipe) if one.metadata]


def add_recipe_options(command: argparse.ArgumentParser) -> None:
    for one in RECIPE_OPTIONS:
        more = dict(one.metadata)
        flag = more.pop("flag", "--" + one.name.replace("_", "-"))
        kind = {"int": int, "float": float}.get(str(one.type).split(" ")[0], str)
        command.add_argument(flag, dest=one.name, type=kind, default=argparse.SUPPRESS, **more)  # it is the recipe's


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that was asked for; a model that is not shipped has a rate of 5e-5 unless one is given."""
    from forgetlab.tasks.source_names import parted

    given = {one.name: getattr(options, one.name) for one in RECIPE_OPTIONS if hasattr(options, one.name)}
    recipe = Recipe(**{**given, "watch": tuple(parted(given.get("watch", "")))})
    if "lr" not in given and recipe.model not in ("tiny-bert", "tiny-gpt"):
        recipe = replace(recipe, lr=5e-5)
    return recipe
