"""Runs killed at random moments, taken up again and compared bit for bit with one that nobody disturbed.

python -m tests.crashing compare 20       `compare`, killed and resumed, twenty times over
python -m tests.crashing save 20          the same with --save: the model too is the one of an undisturbed comparison
python -m tests.crashing trainer 20       a ForgettingTrainer likewise
Half of the moments are times, the other half operations on files: the process is killed just before its n-th one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the numbers of an undisturbed run are to be the same bits
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from forgetlab.__main__ import main as command_line
from forgetlab.errors import ForgetlabError
from forgetlab.experiments import comparison, report  # noqa: F401  (loaded here, so that no child does so anew)
from forgetlab.experiments.past_runs import files_of_runs
from forgetlab.training.huggingface import checkpoints
from tests.test_cli import timeless
from tests.training.huggingface.test_trainer import OLD, RESUMED, trained, weights

ARGUMENTS = ["--steps=4", "--every=2", "--batch=4", "--limit=8", "--methods=none,replay", "--seeds=2"]
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
TRIES = 3  # a run is killed so often at most before it is left in peace


@dataclass
class Ended:
    """How a child process ended. operations: on files below its folder."""

    status: int
    seconds: float
    operations: int


def child(work: Callable[[], object], out: Path, after: float | None = None, before: int | None = None) -> Ended:
    """Run `work` in a fork; kill it after so many seconds, or before its n-th operation on a file below `out`."""
    reading, writing = os.pipe()
    start, pid = time.perf_counter(), os.fork()
    if not pid:
        _watch(out, writing, before)
        status = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            work()
            status = 0
        finally:
            os._exit(status)  # nothing of the parent's is to be ended twice
    os.close(writing)
    ended = 0
    while after is not None and not ended and time.perf_counter() - start < after:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)
    if not ended:
        if after is not None:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as told:
        operations = len(told.read())
    return Ended(os.waitstatus_to_exitcode(status), time.perf_counter() - start, operations)


def _watch(out: Path, told: int, last: int | None) -> None:
    seen, below = 0, str(out)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in EVENTS and isinstance(given[0], str | os.PathLike) and os.fspath(given[0]).startswith(below):
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
            os.write(told, b".")

    sys.addaudithook(hook)


def crash(
    rounds: int, seed: int, run: Callable[[str, Path], object], check: Callable[..., str], cases: list[str]
) -> int:
    """`rounds` runs killed up to TRIES times and then ended; returns how many were not as the undisturbed one.

    run: computes a case in a folder, or goes on with it. check: what is wrong with a folder, against the whole one.
    """
    chance, wrong, kills = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole: dict[str, tuple[Path, Ended]] = {}
        for i in range(rounds):
            case = cases[i % len(cases)]
            if case not in whole:
                out = Path(folder, f"whole-{len(whole)}")
                whole[case] = out, child(lambda case=case, out=out: run(case, out), out)
                assert whole[case][1].status == 0, f"{case} fails undisturbed"
            (right, undisturbed), out, moments = whole[case], Path(folder, f"cut-{i}"), []
            for _ in range(chance.randint(1, TRIES)):
                work = lambda case=case, out=out: run(case, out)  # noqa: E731
                if chance.random() < 0.5:
                    ended = child(work, out, after=chance.uniform(0, undisturbed.seconds))
                    moments.append(f"{ended.seconds:.2f} s")
                else:
                    ended = child(work, out, before=chance.randrange(undisturbed.operations))
                    moments.append(f"operation {ended.operations}")
                kills += ended.status == -signal.SIGKILL
                if ended.status > 0:
                    moments.append(f"exit status {ended.status}")
                kept = {path: path.read_bytes() for path in files_of_runs(out / "runs")}
            last = child(lambda case=case, out=out: run(case, out), out)
            fault = f"exit status {last.status}" if last.status else check(out, right)
            if any(path.read_bytes() != content for path, content in kept.items()):
                fault = fault or "a finished run was computed again"
            wrong += bool(fault)
            print(f"{case}, killed at {', '.join(moments)}: {fault or 'the same bits'}", flush=True)
    print(f"{rounds} runs, {kills} kills: {wrong or 'none'} differ from the undisturbed one")
    return wrong


def compare(case: str, out: Path) -> None:
    """`compare --resume` into a folder."""
    if status := command_line(["compare", *ARGUMENTS, f"--processes={case}", "--resume", "--out", str(out)]):
        os._exit(status)


def save(case: str, out: Path) -> None:
    """`compare --resume --save` into a folder: one method alone is saved whatever it learns."""
    more = ["--methods=replay", "--seeds=1", f"--processes={case}", "--resume", "--save", str(out / "model")]
    if status := command_line(["compare", *ARGUMENTS[:4], *more, "--out", str(out)]):
        os._exit(status)


def check_save(out: Path, right: Path) -> str:
    """What is wrong with a report or its model."""
    weights, wanted = ((one / "model" / "model.safetensors").read_bytes() for one in (out, right))
    return check_compare(out, right) or "other weights" * (weights != wanted)


def check_compare(out: Path, right: Path) -> str:
    """What is wrong with a report that was killed along the way."""
    found, wanted = (timeless(json.loads((one / "results.json").read_text())) for one in (out, right))
    names, usual = (sorted(str(p.relative_to(one)) for p in one.rglob("*")) for one in (out, right))
    return "other results" * (found != wanted) or f"other files: {sorted({*names} ^ {*usual})}" * (names != usual)


def trainer(case: str, out: Path) -> None:
    """A ForgettingTrainer with a checkpoint at every step, from the newest one on."""
    try:
        with warnings.catch_warnings(action="ignore"):
            resume = checkpoints.newest(out) and True
    except ForgetlabError:
        resume = False
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "lr_scheduler_type": "linear"}
    done = trained(out, RESUMED[case](), resume=resume, **saving)
    told = {"records": [asdict(record) for record in done.records], "logs": done.state.log_history}
    told["weights"] = {name: w.double().sum().item() for name, w in weights(done).items()}
    (out / "told.json").write_text(json.dumps(told))


def check_trainer(out: Path, right: Path) -> str:
    """What is wrong with a Trainer's run: its weights, its logs, or a record of a step."""
    found, wanted = (json.loads((one / "told.json").read_text()) for one in (out, right))
    logs, usual = ([one for one in told["logs"] if "drift" in one] for told in (found, wanted))
    if found["weights"] != wanted["weights"] or logs != usual:
        return "other weights" if found["weights"] != wanted["weights"] else "other logs"
    steps = {record["step"]: record for record in wanted["records"]}
    for record in found["records"]:
        other = steps[record["step"]]
        if (record["loss"], record["drift"], record["scores"][OLD]) != (
            other["loss"],
            other["drift"],
            other["scores"][OLD],
        ):
            return f"another record of step {record['step']}"
    return ""


def main() -> int:
    """The command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "save", "trainer"))
    parser.add_argument("rounds", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", default="1", help="of compare (default: 1)")
    options = parser.parse_args()
    if options.what == "compare":
        return crash(options.rounds, options.seed, compare, check_compare, [options.processes])
    if options.what == "save":
        return crash(options.rounds, options.seed, save, check_save, [options.processes])
    return crash(options.rounds, options.seed, trainer, check_trainer, list(RESUMED))


if __name__ == "__main__":
    sys.exit(bool(main()))
