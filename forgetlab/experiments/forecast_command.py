"""`python -m forgetlab forecast`: a short trial says what the planned run will cost. No torch at import."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from forgetlab.errors import ForgetlabError
from forgetlab.experiments.recipe_options import add_recipe_options, recipe_of

EXAMPLES = """examples:
  python -m forgetlab forecast --new sentiment --steps 300
  python -m forgetlab forecast --new reviews.csv --watch entities.conll --model ./my-bert --lr 1e-4 --steps 2000
  python -m forgetlab forecast --new special.txt --watch general.txt --model ./my-gpt --method replay:ratio=0.1
"""


def add_to(commands: Any) -> None:
    """Add the command to those of `python -m forgetlab`."""
    command: argparse.ArgumentParser = commands.add_parser(
        "forecast",
        help="a trial of a few steps: which watched skills will the whole run cost, and how much",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(action=run)
    add_recipe_options(command)
    text = "NAME[:SETTING=VALUE,…][+NAME…], none is plain fine-tuning (default: none)"
    command.add_argument("--method", dest="methods", default="none", help=text)
    text = "how many trials, each with a seed of its own (default: %(default)s)"
    command.add_argument("--trials", type=int, default=3, metavar="N", help=text)
    text = "the report of an earlier compare of this model and these tasks: the forecast learns from its runs"
    command.add_argument("--past", metavar="FOLDER", help=text)
    command.add_argument("--out", metavar="FILE", help="write the forecast there as JSON")


def run(options: argparse.Namespace) -> None:
    """Make the trials, print the table in words, write the JSON."""
    from forgetlab.experiments.past_runs import check_length, runs_like
    from forgetlab.experiments.plan import check_names
    from forgetlab.experiments.recipe import check_device

    if options.trials < 1:
        raise ForgetlabError(f"--trials must be 1 or more, got {options.trials}")
    recipe = replace(recipe_of(options), methods=options.methods)
    recipe.check()
    if (out := Path(options.out) if options.out else None) and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise ForgetlabError(f"--out {out} is no file that can be written: give a file's name in a folder that exists")
    check_names(recipe.methods)
    recipe.check_files()
    check_device(recipe.device)
    check_length(recipe)
    if options.past is not None:
        runs_like(recipe, Path(options.past))
    from forgetlab.remedies.by_name import make_methods

    make_methods(recipe.methods, None)  # torch alone: a model takes longer
    from forgetlab.experiments.forecast import SEEDS, forecast, table

    found = forecast(recipe, range(SEEDS[0], SEEDS[0] + options.trials), options.past)
    for note in found.notes:
        print(note)
    print(table(found))
    if out:
        out.write_text(json.dumps(found.plain(), indent=1) + "\n", encoding="utf-8")
        print(f"written: {out}")
