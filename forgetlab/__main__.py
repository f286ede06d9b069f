"""The command line: `python -m forgetlab compare` and its relatives. Errors are one line, exit status 2."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetlab.errors import ForgetlabError

if TYPE_CHECKING:
    from forgetlab.experiments.recipes import Recipe
    from forgetlab.training.record import Record

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
            return int(options.action(options) or 0)
    except ForgetlabError as error:
        _clear()
        print(f"forgetlab: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        _clear()
        print(f"forgetlab: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        _clear()
        print(f"forgetlab: stopped; {stop or 'nothing was written'}", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


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
    ):
        command = commands.add_parser(name, help=text, epilog=EXAMPLES, formatter_class=parser.formatter_class)
        command.set_defaults(action=_compare)
        add = command.add_argument
        add(
            "--model",
            default="tiny-bert",
            help="a shipped name, a transformers folder or a hub id (default: tiny-bert)",
        )
        add(
            "--new",
            default="",
            metavar="TASK_OR_FILE",
            help="what to learn (default: the embedded sentiment task)",
        )
        add(
            "--watch",
            default="",
            metavar="A,B",
            help="what to watch, comma-separated: task names or files, with columns: cola.tsv:text=3,label=1",
        )
        if name == "compare":
            add(
                "--methods",
                default="none,l2sp,ewc,replay,frozen",
                metavar="A,B",
                help="NAME[:SETTING=VALUE,…][+NAME…], comma-separated; all: every remedy that fits",
            )
        else:
            add("--method", dest="methods", default="none", help="NAME[:SETTING=VALUE,…][+NAME…]")
        add(
            "--budget",
            default=None,
            metavar="TIME",
            help="90s, 10m, 1.5h: search the strength of each method given by its bare name within that time",
        )
        add(
            "--keep",
            type=float,
            default=0.95,
            metavar="SHARE",
            help="share of the old scores that is to stay, for the recommendation (default: %(default)s)",
        )
        add("--resume", action="store_true", help="go on with the runs that are in --out")
        add("--processes", type=int, default=None, metavar="N", help="default: what is fastest for the model")
        add("--cluster", default=None, metavar="ADDRESS", help="compute on the workers of a Dask scheduler")
        add("--steps", type=int, default=300)
        add(
            "--lr",
            type=float,
            default=None,
            help="learning rate (default: 1e-3 for the tiny models, 5e-5 for others)",
        )
        add("--batch", type=int, default=32)
        add(
            "--seeds",
            type=int,
            default=3 if name == "compare" else 1,
            help="how many seeds (default: %(default)s)",
        )
        add("--every", type=int, default=20, help="steps between evaluations")
        add("--similarity", type=float, default=1.0, help="embedded reviews only: 0 (unfamiliar) to 1")
        add(
            "--learn-steps",
            type=int,
            default=200,
            help="steps for watched tasks that the model has no head for",
        )
        add("--limit", type=int, default=512, help="test examples per score")
        add("--text", default=None, metavar="COLUMN", help="column of the new file's text")
        add("--label", default=None, metavar="COLUMN", help="column of the new file's labels")
        add(
            "--kind",
            default=None,
            choices=("text", "labelled", "pairs", "tags"),
            help="how to read the new file",
        )
        add("--device", default="auto")
        add("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
        add(
            "--out",
            default="forgetlab-report",
            metavar="FOLDER",
            help="where the report goes (default: %(default)s)",
        )

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

    command = commands.add_parser("demo", help="the main job on the embedded world: compare, with its defaults")
    command.set_defaults(action=_demo)
    command.add_argument("--out", default="forgetlab-report", metavar="FOLDER")

    commands.add_parser("models", help="list the shipped models").set_defaults(action=_models)
    commands.add_parser("tasks", help="list the embedded tasks").set_defaults(action=_tasks)
    commands.add_parser("methods", help="list the remedies and their settings").set_defaults(action=_methods)
    return parser


def _compare(options: argparse.Namespace) -> None:
    from forgetlab.experiments import comparison, recipes, report, sweeps, tables
    from forgetlab.tasks.source_names import parted

    if options.seeds < 1:
        raise ForgetlabError(f"--seeds must be 1 or more, got {options.seeds}")
    lr = options.lr if options.lr is not None else (1e-3 if options.model in ("tiny-bert", "tiny-gpt") else 5e-5)
    recipe = recipes.Recipe(
        model=options.model,
        new=options.new,
        watch=tuple(parted(options.watch)),
        steps=options.steps,
        lr=lr,
        batch_size=options.batch,
        every=options.every,
        similarity=options.similarity,
        learn_steps=options.learn_steps,
        limit=options.limit,
        text=options.text,
        label=options.label,
        kind=options.kind,
        device=options.device,
        precision=options.precision,
    )
    plan = comparison.Plan(
        recipe,
        methods=[m.replace(";", ",") for m in re.split(METHODS_APART, options.methods) if m],
        seeds=range(options.seeds),
        out=Path(options.out),
        budget=comparison.seconds(options.budget) if options.budget is not None else None,
        keep=options.keep,
        resume=options.resume,
        processes=options.processes,
        cluster=options.cluster,
    )
    plan.check()  # said now, not after the training
    start = time.perf_counter()
    _progress("loading the model and the tasks")

    def say(note: str) -> None:
        _clear()
        print(f"note: {note}")

    progress = _Progress(plan.budget, options.steps * len(plan.names()) * options.seeds)
    with sweeps.opened(plan.out, recipe, plan.resume) as kept:
        try:
            results = comparison.compare(plan, kept=kept, say=say, on_record=progress, on_run=progress.landed)
            _clear()
            results["command"] = "python -m forgetlab " + " ".join(sys.argv[1:])
            print(tables.table(results))
            print("\n" + "\n".join(report.filled(results["recommendation"])))
            page = report.write(results, plan.out)
            kept.finish()
        except KeyboardInterrupt as stop:
            raise type(stop)(kept.told()) from None
    print(f"\nreport: {page}   ({time.perf_counter() - start:.0f} s)")


def _pretrain(options: argparse.Namespace) -> None:
    from forgetlab import sources
    from forgetlab.tasks.source_names import MACHINE_TEXT
    from forgetlab.training import pretraining

    out = Path(options.out)
    if bool(options.name) == bool(options.text):
        raise ForgetlabError("say what to train: tiny-bert, tiny-gpt, or --text FILE")
    if out.exists() and not (out.is_dir() and ((out / "config.json").is_file() or not any(out.iterdir()))):
        raise ForgetlabError(f"{out} exists and is not a model folder: choose another --out")
    if options.steps is not None and options.steps < 1:
        raise ForgetlabError(f"--steps must be 1 or more, got {options.steps}")
    start = time.perf_counter()
    if options.name:
        run = pretraining.pretrain(options.name, seed=options.seed, steps=options.steps)
    else:
        examples = (
            sources.machine_text(options.text)
            if options.text in MACHINE_TEXT
            else sources.read(options.text, kind="text")
        )
        train, _ = sources.split(examples, test=0.2)  # the same split as `compare` makes: its test side stays unseen
        run = pretraining.pretrain_on(train.texts, seed=options.seed, steps=options.steps or 1000)
    for step, loss, trained in run:
        model = trained
        _progress(f"step {step}   loss {loss:.3f} nats   {time.perf_counter() - start:.0f} s")
    _clear()
    model.save(out)
    if options.name:
        (out / "README.md").write_text(pretraining.card(options.name, model, step, options.seed), encoding="utf-8")
    print(f"saved {out} ({sum(p.numel() for p in model.parameters()):,} weights, {time.perf_counter() - start:.0f} s)")


def _lab(options: argparse.Namespace) -> None:
    from forgetlab.teaching import lessons

    lessons.serve(Path(options.folder), browser=not options.no_browser)


def _demo(options: argparse.Namespace) -> int:
    return main(["compare", "--out", options.out])


def _models(options: argparse.Namespace) -> None:
    import json

    from forgetlab.models.loading import shipped_models
    from forgetlab.sources.shipped import data_folder

    for name in shipped_models():
        config = json.loads((data_folder() / "models" / name / "config.json").read_text(encoding="utf-8"))
        print(f"{name:<12}{config['architectures'][0]:<18}{data_folder() / 'models' / name}")
    print("any transformers folder or hub id works as well")


def _tasks(options: argparse.Namespace) -> None:
    from forgetlab.tasks.embedded import task_names
    from forgetlab.tasks.source_names import MACHINE_TEXT

    for name, text in task_names().items():
        print(f"{name:<16}{text}")
    print(f"{', '.join(MACHINE_TEXT)}: real text of this machine")
    print("any CSV, TSV, JSONL, CoNLL or plain-text file works as well")


def _methods(options: argparse.Namespace) -> None:
    import inspect

    from forgetlab.remedies.by_name import METHODS, settings

    for name, remedy in METHODS.items():
        takes = settings(name)
        usual = f"usual {remedy.main.name}={takes.pop(remedy.main.name)}" if remedy.main else ""
        shown = ", ".join(f"{key}={value}" for key, value in takes.items())
        text = "plain fine-tuning" if name == "none" else (inspect.getdoc(remedy) or "").splitlines()[0]
        print(f"{name:<20}{text}")
        if name != "none":
            print(f"{'':<20}{'; '.join(filter(None, (remedy.family, usual, shown)))}")
    print("strength=1 of a pull on the weights: λ = 0.02 / mean Ω, of its importance Ω; with lam=… it is that λ")
    print("several at once: replay:ratio=0.3+ewc:lam=100; in a list, methods and settings are parted by commas")


class _Progress:
    """A bar on the terminal; silent where the output is not one.

    budget: seconds, or None; steps: of all runs, where there is no budget.
    """

    def __init__(self, budget: float | None, steps: int) -> None:
        self.budget, self.steps, self.finished, self.spent = budget, steps, 0, 0.0
        self.start = self.begun = time.perf_counter()

    def __call__(self, recipe: Recipe, record: Record) -> None:
        spent = self.spent + time.perf_counter() - self.begun
        self._show(record.step, spent, f"{recipe.methods}  seed {recipe.seed}  step {record.step}")

    def landed(self, run: dict[str, Any], spent: float) -> None:
        self.finished += run["recipe"]["steps"]
        self.spent, self.begun = spent, time.perf_counter()
        self._show(0, spent, f"{run['recipe']['methods']}  seed {run['recipe']['seed']}  done")

    def _show(self, step: int, spent: float, text: str) -> None:
        seconds = time.perf_counter() - self.start
        share = min(1.0, spent / self.budget if self.budget else (self.finished + step) / self.steps)
        left = f"{seconds / share - seconds:.0f} s left" if share > 0.02 and not self.budget else ""
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
        _progress(f"{bar} {share:4.0%}  {text}  {left}")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1  # spaces, for a Windows console may not know escapes
        print(f"\r{text[:width]:<{width}}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r", file=sys.stderr, flush=True)


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
