"""`python -m forgetlab diff BEFORE AFTER…`: its options, and what cannot work, said before torch is loaded."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from forgetlab.diff import gate

EXAMPLES = """examples:
  python -m forgetlab diff bert-base-cased ./tuned --watch general.txt,entities.conll --new reviews.csv
      what did this fine-tune cost, and how sure is that
  python -m forgetlab diff ./base ./adapter --watch general.txt --allow general=1.05x
      a gate: exit status 0 fine, 3 lost, 4 not enough evidence, 2 an error
  python -m forgetlab diff ./base run/checkpoint-100 run/checkpoint-200 --watch general.txt
      checkpoints of a run, as curves
"""


def add_to(commands: Any) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser(
        "diff",
        help="what a finished fine-tune cost, and how sure that is",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(action=_diff)
    add = command.add_argument
    name = "a shipped name, a transformers folder or a hub id"
    add("before", metavar="BEFORE", help=f"the model before the fine-tune: {name}")
    add("afters", metavar="AFTER", nargs="+", help=f"the model after it: {name}, or a peft adapter's folder")
    text = "what to compare them on, comma-separated: task names or files, with columns: cola.tsv:text=3,label=1"
    add("--watch", default="", metavar="A,B", help=text)
    add("--new", default="", metavar="TASK_OR_FILE", help="what AFTER was trained on")
    add("--limit", type=int, default=2000, metavar="N", help="test items per task at most (default: %(default)s)")
    text = "a gate: how much a task may lose, in points of its score or as a factor of its perplexity"
    add("--allow", metavar="TASK=0.02,TASK=1.1x", help=text)
    add("--where", action="store_true", help="where the model changed, and whether what is lost is only out of reach")
    add("--repair", metavar="FOLDER", help="write a model between BEFORE and AFTER that keeps more of the old")
    text = (
        "how much of the new score a repair may cost, in points, or as a factor of a perplexity (default: %(default)s)"
    )
    add("--within", default="0.01", metavar="0.01|1.02x", help=text)
    add("--out", default="forgetlab-diff", metavar="FOLDER", help="where the report goes (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--dtype", default="float32", choices=gate.PRECISIONS, help="of the weights (default: float32)")


def _diff(options: argparse.Namespace) -> int:
    from forgetlab.diff.order import Order
    from forgetlab.tasks.source_names import parted

    order = Order(
        before=options.before,
        afters=tuple(options.afters),
        watch=tuple(parted(options.watch)),
        new=options.new,
        limit=options.limit,
        allow=tuple(gate.parsed(options.allow).items()) if options.allow is not None else (),
        where=options.where,
        repair=Path(options.repair) if options.repair is not None else None,
        within=options.within,
        out=Path(options.out),
        device=options.device,
        dtype=options.dtype,
        command="python -m forgetlab " + shlex.join(sys.argv[1:]),
    )
    order.check()
    from forgetlab.diff import report, run, told
    from forgetlab.experiments import progress

    with progress.Progress(None, 1, "loading the models") as bar:
        found = run.execute(order, bar.say)
    print("\n".join(told.lines(found)), flush=True)
    page = report.write(found, order.out)
    print(f"\nreport: {page}   ({found['seconds']:.0f} s)", flush=True)
    return gate.STATUS[found["gate"]]
