"""The command line: `python -m forgetlab compare` and its relatives. Errors are one line, exit status 2."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from forgetlab.diff import command as diff_command
from forgetlab.errors import ForgetlabError
from forgetlab.experiments import forecast_command, progress
from forgetlab.experiments.recipe_options import add_recipe_options, recipe_of

if TYPE_CHECKING:
    from forgetlab.metrics.schema import Results

__all__ = ["main"]

EXAMPLES = """examples:
  python -m forgetlab compare
      the embedded world: what does learning sentiment cost a tiny BERT, and what helps
  python -m forgetlab compare --new reviews.csv --watch entities.conll --model ./my-bert
      your data on your model: labels are found by their column's name
  python -m forgetlab pretrain --text general.txt --out ./my-gpt
  python -m forgetlab compare --new special.txt --watch general.txt --model ./my-gpt --methods none,l2sp,replay
"""


METHODS_APART = r",(?!\s*\w+=)"  # not at the comma before another setting: replay:ratio=0.3,memory=10


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        with _terminable():
            return options.action(options) or 0
    except ForgetlabError as error:
        said, status = str(error), 2
    except OSError as error:
        said, status = f"{error.filename or 'file'}: {error.strerror or error}", 2
    except KeyboardInterrupt as stop:
        said = f"stopped; {str(stop) or 'nothing was written'}"
        status = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    progress.clear()
    print(f"forgetlab: {said}", file=sys.stderr)
    return status


class Terminated(KeyboardInterrupt):
    """The system asks to end, as it does before a shutdown or a batch queue's time limit: as good as a Ctrl-C."""


@contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there may signals be handled
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m forgetlab",
        description="What will a fine-tune cost the model, and which remedy is the cheapest?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, text in (
        ("compare", "fine-tune with several methods and report"),
        ("measure", "the same for one method"),
        ("demo", "the main job on the embedded world: compare, with its defaults"),
    ):
        command = commands.add_parser(name, help=text, epilog=EXAMPLES, formatter_class=parser.formatter_class)
        command.set_defaults(action=_compare)
        add = command.add_argument
        add_recipe_options(command)
        several = (
            "NAME[:SETTING=VALUE,…][+NAME…], none is plain fine-tuning; the strength of a pull, as in ewc:strength=3, "
            "counts from 0, and 1 is usual"
        )
        if name == "measure":
            add("--method", dest="methods", default="none", help=several)
        else:
            text = f"comma-separated: {several}; all: every remedy that fits (default: %(default)s)"
            add("--methods", default="none,l2sp,ewc,replay,frozen", metavar="A,B", help=text)
        text = "how many seeds (default: %(default)s)"
        add("--seeds", type=int, default=1 if name == "measure" else 3, help=text)
        text = (
            "90s, 10m, 1.5h: search the strength of each method given by its bare name within it, after one try of each"
        )
        add("--budget", metavar="TIME", help=text)
        text = "share of the old scores that is to stay, from 0 to 1, for the recommendation (default: %(default)s)"
        add("--keep", type=float, default=0.95, metavar="SHARE", help=text)
        add("--resume", action="store_true", help="go on with the runs that are in --out")
        add("--processes", type=int, metavar="N", help="default: what is fastest for the model")
        add("--cluster", metavar="ADDRESS", help="compute on the workers of a Dask scheduler")
        text = "save the recommended model there, with a card: its recipe is trained once more, at the first seed"
        add("--save", metavar="FOLDER", help=text)
        add(
            "--save-all",
            metavar="FOLDER",
            help="save the model of every run, each in a folder of its own below this one",
        )
        add("--report-to", default="", metavar="A,B", help="show the scores in tensorboard, wandb or both, too")
        text = "where the report goes (default: %(default)s)"
        add("--out", default="forgetlab-report", metavar="FOLDER", help=text)

    diff_command.add_to(commands)
    forecast_command.add_to(commands)

    command = commands.add_parser("pretrain", help="train a small model: a shipped one, or a GPT on your text")
    command.set_defaults(action=_pretrain)
    command.add_argument("name", nargs="?", choices=("tiny-bert", "tiny-gpt"), help="rebuild a shipped model")
    command.add_argument("--text", metavar="FILE", help="plain text, or python-docs, python-source, licences")
    command.add_argument("--steps", type=int, default=None)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", required=True, metavar="FOLDER")

    command = commands.add_parser("lab", help="JupyterLab on lesson 00")
    command.set_defaults(action=_lab)
    command.add_argument(
        "folder",
        nargs="?",
        default="forgetlab-lessons",
        help="where an installed wheel puts the lessons (default: %(default)s); a checkout serves its own",
    )
    command.add_argument("--no-browser", action="store_true", help="print the address only")

    for name, text in (
        ("models", "shipped models"),
        ("tasks", "embedded tasks"),
        ("methods", "remedies by name"),
    ):
        commands.add_parser(name, help=f"list the {text}").set_defaults(action=_list, what=name)
    return parser


def _compare(options: argparse.Namespace) -> None:
    from forgetlab.experiments.plan import Plan, seconds

    if options.seeds < 1:
        raise ForgetlabError(f"--seeds must be 1 or more, got {options.seeds}")
    recipe = recipe_of(options)
    plan = Plan(
        recipe,
        methods=[m.replace(";", ",") for m in re.split(METHODS_APART, options.methods) if m],
        seeds=range(options.seeds),
        out=Path(options.out),
        budget=seconds(options.budget) if options.budget is not None else None,
        keep=options.keep,
        resume=options.resume,
        processes=options.processes,
        cluster=options.cluster,
        save=Path(options.save) if options.save is not None else None,
        save_all=Path(options.save_all) if options.save_all is not None else None,
        report_to=tuple(dict.fromkeys(filter(None, (one.strip() for one in options.report_to.split(","))))),
    )
    plan.check()  # said now, not after the training
    plan.check_methods()
    from forgetlab.experiments import comparison, report, sweeps, tables, teller

    start, command = time.perf_counter(), "python -m forgetlab " + shlex.join(sys.argv[1:])
    steps = recipe.steps * (len(plan.names()) * options.seeds + bool(plan.save))
    with progress.Progress(plan.budget, steps) as bar, sweeps.opened(plan.out, recipe, plan.resume) as kept:
        told = teller.Teller(bar, kept, plan.report_to, command)

        def show(results: Results) -> None:
            progress.clear()
            results["command"] = command
            advice = "\n".join(report.filled(results["recommendation"]))
            print(f"{tables.table(results)}\n\n{advice}\n", flush=True)
            print(f"report: {report.write(results, plan.out)}   ({time.perf_counter() - start:.0f} s)", flush=True)

        try:
            comparison.execute(plan, kept, told, on_results=show)
            kept.finish()
        except KeyboardInterrupt as stop:
            raise type(stop)(kept.told()) from None
        finally:
            told.close()


def _pretrain(options: argparse.Namespace) -> None:
    from forgetlab import sources
    from forgetlab.sources.paragraphs import check_enough
    from forgetlab.tasks.source_names import MACHINE_TEXT

    out = Path(options.out)
    if bool(options.name) == bool(options.text):
        raise ForgetlabError("say what to train: tiny-bert, tiny-gpt, or --text FILE")
    if out.exists() and not (out.is_dir() and ((out / "config.json").is_file() or not any(out.iterdir()))):
        raise ForgetlabError(f"{out} exists and is not a model folder: choose another --out")
    if options.steps is not None and options.steps < 1:
        raise ForgetlabError(f"--steps must be 1 or more, got {options.steps}")
    start = time.perf_counter()
    train = None
    if options.text:
        of_machine = options.text in MACHINE_TEXT
        examples = sources.machine_text(options.text) if of_machine else sources.read(options.text, kind="text")
        train, _ = sources.split(examples, test=0.2)  # the same split as `compare` makes: its test side stays unseen
        check_enough(train.texts)
    from forgetlab.training import pretraining

    steps = options.steps or (1000 if train else pretraining.SHIPPED[options.name].steps)
    if train:
        run = pretraining.pretrain_on(train.texts, seed=options.seed, steps=steps)
    else:
        run = pretraining.pretrain(options.name, seed=options.seed, steps=steps)
    with progress.Progress(None, 1, "reading the text") as bar:
        for step, loss, trained in run:
            model = trained
            bar.say(f"step {step}   loss {loss:.3f} nats   {time.perf_counter() - start:.0f} s", step / steps)
    model.save(out)
    if options.name:
        (out / "README.md").write_text(pretraining.card(options.name, model, step, options.seed), encoding="utf-8")
    print(f"saved {out} ({sum(p.numel() for p in model.parameters()):,} weights, {time.perf_counter() - start:.0f} s)")


def _lab(options: argparse.Namespace) -> None:
    from forgetlab.teaching import lessons

    lessons.serve(Path(options.folder), browser=not options.no_browser)


def _list(options: argparse.Namespace) -> None:
    from forgetlab.experiments import listing

    {"models": listing.models, "tasks": listing.tasks, "methods": listing.methods}[options.what]()


# One character for one, so that columns stand.
PLAIN = str.maketrans("×±→−·█…“”’–", 'x~>-.#~""\'-')


def _console() -> None:
    """Signs that the terminal's encoding lacks are written in plain ones: a table is no reason to end."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        signs = error.object[error.start : error.end].translate(PLAIN)
        return signs.encode("ascii", "backslashreplace").decode(), error.end  # a name that is no text, too

    codecs.register_error("plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _quiet() -> None:
    """transformers' own bars and hints would break the one-line promise."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    _console()
    if "lab" not in sys.argv[1:2]:  # its kernels say what they like
        _quiet()
    sys.exit(main())
