"""The command line: `python -m forgetlab compare` and its relatives. Errors are one line, exit status 2."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from forgetlab.errors import ForgetlabError

if TYPE_CHECKING:
    from forgetlab.recipes import Recipe
    from forgetlab.training import Record

EXAMPLES = """examples:
  python -m forgetlab compare
      the embedded world: what does learning sentiment cost a tiny BERT, and what helps
  python -m forgetlab compare --new reviews.csv --watch entities.conll --model ./my-bert
      your data on your model: labels are found by their column's name
  python -m forgetlab pretrain --text general.txt --out ./my-gpt
  python -m forgetlab compare --new special.txt --watch general.txt --model ./my-gpt --methods none,l2sp,replay
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.action(options) or 0)
    except ForgetlabError as error:
        _clear()
        print(f"forgetlab: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        _clear()
        print(f"forgetlab: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _clear()
        print("forgetlab: stopped; nothing was written", file=sys.stderr)
        return 130


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
        add("--watch", default="", metavar="A,B", help="what to watch: task names or files, comma-separated")
        if name == "compare":
            add(
                "--methods",
                default="none,l2sp,ewc,replay,frozen",
                metavar="A,B",
                help="NAME[:SETTING=VALUE;…][+NAME…], comma-separated",
            )
        else:
            add("--method", dest="methods", default="none", help="NAME[:SETTING=VALUE;…][+NAME…]")
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

    commands.add_parser("models", help="list the shipped models").set_defaults(action=_models)
    commands.add_parser("tasks", help="list the embedded tasks").set_defaults(action=_tasks)
    commands.add_parser("methods", help="list the remedies and their settings").set_defaults(action=_methods)
    return parser


def _compare(options: argparse.Namespace) -> None:
    from forgetlab import recipes, report

    out = Path(options.out)
    report.check_folder(out)  # said now, not after the training
    methods = [m.replace(";", ",") for m in options.methods.split(",") if m]
    if options.seeds < 1:
        raise ForgetlabError(f"--seeds must be 1 or more, got {options.seeds}")
    if not methods:
        raise ForgetlabError("no method given; try --methods none,l2sp,ewc,replay")
    lr = options.lr if options.lr is not None else (1e-3 if options.model in ("tiny-bert", "tiny-gpt") else 5e-5)
    recipe = recipes.Recipe(
        model=options.model,
        new=options.new,
        watch=tuple(w for w in options.watch.split(",") if w),
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
    for method in methods:
        recipes.make_methods(method, None)
    start = time.perf_counter()
    _progress("loading the model and the tasks")
    bench = recipes.prepare(recipe)
    _clear()
    for note in bench.notes:
        print(f"note: {note}")
    progress = _Progress(len(methods) * options.seeds * options.steps)
    results = recipes.compare(recipe, methods, range(options.seeds), bench, on_record=progress)
    _clear()
    results["command"] = "python -m forgetlab " + " ".join(sys.argv[1:])
    print(report.table(results))
    page = report.write(results, out)
    print(f"\nreport: {page}   ({time.perf_counter() - start:.0f} s)")


def _pretrain(options: argparse.Namespace) -> None:
    from forgetlab import pretraining, sources
    from forgetlab.recipes import MACHINE_TEXT

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


def _models(options: argparse.Namespace) -> None:
    import json

    from forgetlab.models import shipped_models
    from forgetlab.paths import data_folder

    for name in shipped_models():
        config = json.loads((data_folder() / "models" / name / "config.json").read_text(encoding="utf-8"))
        print(f"{name:<12}{config['architectures'][0]:<18}{data_folder() / 'models' / name}")
    print("any transformers folder or hub id works as well")


def _tasks(options: argparse.Namespace) -> None:
    from forgetlab.catalog import task_names
    from forgetlab.recipes import MACHINE_TEXT

    for name, text in task_names().items():
        print(f"{name:<16}{text}")
    print(f"{', '.join(MACHINE_TEXT)}: real text of this machine")
    print("any CSV, TSV, JSONL, CoNLL or plain-text file works as well")


def _methods(options: argparse.Namespace) -> None:
    import inspect

    from forgetlab.recipes import METHODS, settings

    for name, remedy in METHODS.items():
        shown = ", ".join(f"{key}={value}" for key, value in settings(name).items())
        text = "plain fine-tuning" if name == "none" else (inspect.getdoc(remedy) or "").splitlines()[0]
        print(f"{name:<20}{text}")
        if shown:
            print(f"{'':<20}{shown}")
    print("several at once: replay:ratio=0.3+ewc:lam=100 (in a list of methods, settings are parted by ;)")


class _Progress:
    """A bar on the terminal; silent where the output is not one."""

    def __init__(self, steps: int) -> None:
        self.steps, self.finished, self.start = steps, 0, time.perf_counter()

    def __call__(self, recipe: Recipe, record: Record) -> None:
        done = self.finished + record.step
        share = done / self.steps
        seconds = time.perf_counter() - self.start
        left = f"{seconds / share - seconds:.0f} s left" if share > 0.02 else ""
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
        _progress(f"{bar} {share:4.0%}  {recipe.methods}  seed {recipe.seed}  step {record.step}  {left}")
        if record.status != "running":
            self.finished += recipe.steps


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _quiet() -> None:
    """transformers' own bars and hints would break the one-line promise."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
