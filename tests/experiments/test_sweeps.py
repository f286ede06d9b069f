"""Runs in a folder: what is kept, taken up, refused and computed again; in one process, in several, on a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.experiments import workers
from forgetlab.experiments.recipes import Recipe
from forgetlab.experiments.sweeps import Dispatcher, RunFolder
from forgetlab.experiments.workers import Pool

QUICK = Recipe(steps=4, every=2, batch_size=8, limit=32, device="cpu")
RECIPES = [replace(QUICK, methods=m, seed=s) for m in ("none", "l2sp") for s in (0, 1)]


class Fake(Executor):
    """Runs out of nothing: they take a second each by the clock `now`; `hold` of them land later, the last first."""

    def __init__(self, hold: int = 1) -> None:
        self.now, self.hold = 0.0, hold
        self.asked: list[Recipe] = []
        self.active: list[tuple[Future[Any], Recipe]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        assert function is workers.compute
        future: Future[Any] = Future()
        self.asked.append(args[0])
        self.active.append((future, args[0]))
        if len(self.active) == self.hold or len(self.asked) == len(RECIPES):
            self.now += 1
            for one, recipe in reversed(self.active):
                one.set_result(made(recipe))
            self.active.clear()
        return future


def made(recipe: Recipe) -> dict[str, Any]:
    if recipe.methods == "columns":
        return {"recipe": {"methods": "columns"}, "key": recipe.key(), "error": "it has no columns"}
    records = [{"loss": 0.1 + recipe.seed / 3}]
    return {"recipe": asdict(recipe), "key": recipe.key(), "records": records, "seconds": 1.0}


def swept(out: Path, executor: Fake, resume: bool = False, **options: Any) -> Dispatcher:
    return Dispatcher(
        Pool(executor, lambda: executor.hold), RunFolder(out, QUICK, resume), clock=lambda: executor.now, **options
    )


def test_runs_land_one_by_one_and_come_in_their_order(tmp_path: Path) -> None:
    seen: list[int] = []
    folder = tmp_path / "out" / "runs"
    sweep = swept(tmp_path / "out", Fake(hold=2), on_run=lambda run: seen.append(len([*folder.glob("*.json")])))
    assert not (tmp_path / "out").exists()  # before the first run
    runs = sweep(RECIPES)
    assert [(run["recipe"]["methods"], run["recipe"]["seed"]) for run in runs] == [
        ("none", 0),
        ("none", 1),
        ("l2sp", 0),
        ("l2sp", 1),
    ]
    assert seen == [2, 3, 4, 5]  # with sweep.json
    assert {p.name for p in folder.iterdir()} == {"sweep.json", *(f"{recipe.key()}.json" for recipe in RECIPES)}
    assert [json.loads((folder / f"{r.key()}.json").read_text())["run"] for r in RECIPES] == runs


def test_a_finished_run_is_never_repeated(tmp_path: Path) -> None:
    first = swept(tmp_path, Fake())(RECIPES[:3])
    again = Fake()
    runs = swept(tmp_path, again, resume=True)(RECIPES)
    assert again.asked == RECIPES[3:]
    assert runs[:3] == first


def test_an_interrupt_right_after_the_first_file_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    sweep = swept(tmp_path, Fake())
    with monkeypatch.context() as patched:
        patched.setattr("forgetlab.experiments.sweeps.files_of_runs", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep(RECIPES)
    assert sweep.kept.told().startswith(f"1 finished run in {tmp_path / 'runs'}: ")


def test_without_resume_an_interrupted_comparison_is_refused_and_a_finished_one_makes_room(tmp_path: Path) -> None:
    first = swept(tmp_path, Fake())
    first(RECIPES[:3])
    there = f"3 finished runs in {tmp_path / 'runs'}"
    assert first.kept.told() == f"{there}: the same command with --resume goes on from there"
    with pytest.raises(ForgetlabError, match="3 finished runs of an interrupted comparison: go on with --resume"):
        RunFolder(tmp_path, QUICK, resume=False)
    first.kept.finish()
    other = Fake()
    second = swept(tmp_path, other)
    assert second.kept.told() == "nothing was written"
    second(RECIPES[:1])
    assert other.asked == RECIPES[:1]
    assert len([*(tmp_path / "runs").glob("*.json")]) == 2  # the new run and sweep.json


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    swept(tmp_path, Fake())(RECIPES)
    names = [f"{recipe.key()}.json" for recipe in RECIPES]
    (tmp_path / "runs" / names[0]).write_text((tmp_path / "runs" / names[0]).read_text()[:50])
    (tmp_path / "runs" / names[2]).write_text((tmp_path / "runs" / names[3]).read_text())  # of another run
    again = Fake()
    sweep = swept(tmp_path, again, resume=True)
    runs = sweep(RECIPES)
    assert again.asked == [RECIPES[0], RECIPES[2]]
    assert sweep.kept.damaged == [names[0], names[2]]
    assert [run["key"] for run in runs] == [recipe.key() for recipe in RECIPES]


def test_a_folder_of_another_recipe_says_what_differs(tmp_path: Path) -> None:
    data, model = tmp_path / "new.csv", tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    data.write_text("text,label\n")
    recipe = replace(QUICK, new=str(data), model=str(model))
    executor = Fake()
    kept = RunFolder(tmp_path / "out", recipe, resume=False)
    Dispatcher(Pool(executor, lambda: 1), kept)([replace(recipe, seed=3)])
    RunFolder(tmp_path / "out", replace(recipe, methods="ewc", seed=1), resume=True)  # these two may differ
    for other, message in (
        (replace(recipe, lr=0.5), "lr was 0.001, now 0.5"),
        (replace(recipe, watch=("entities",)), "watch was nothing, now entities"),
        (replace(recipe, steps=9, limit=None), "steps was 4, now 9; limit was 32, now None"),
    ):
        with pytest.raises(ForgetlabError, match=message):
            RunFolder(tmp_path / "out", other, resume=True)
    for file in (data, model / "config.json"):
        before = file.read_text()
        file.write_text(before + " ")
        with pytest.raises(ForgetlabError, match=f"{file} has changed"):
            RunFolder(tmp_path / "out", recipe, resume=True)
        file.write_text(before)
    RunFolder(tmp_path / "out", recipe, resume=True)


def test_what_would_end_too_late_is_left_out(tmp_path: Path) -> None:
    executor = Fake()
    assert len(swept(tmp_path, executor, estimate=1.0)(RECIPES, until=2.5)) == 2
    assert executor.now == 2
    later = Fake()
    sweep = swept(tmp_path, later, resume=True, estimate=1.0)
    assert len(sweep(RECIPES, until=3.5)) == 3  # the two that are there have taken two seconds of it
    assert later.now == 1
    assert sweep.spent() == 3


def test_a_method_that_does_not_fit_is_left_out_or_an_error(tmp_path: Path) -> None:
    wanted = [RECIPES[0], replace(QUICK, methods="columns")]
    sweep = swept(tmp_path / "a", Fake(), strict=False)
    assert len(sweep(wanted)) == 1
    assert sweep.refused == {"columns": "it has no columns"}
    with pytest.raises(ForgetlabError, match="it has no columns"):
        swept(tmp_path / "b", Fake())(wanted)


def test_a_full_disk_is_said_and_earlier_runs_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept(tmp_path, Fake())(RECIPES[:1])

    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ForgetlabError, match="No space left on device"):
        swept(tmp_path, Fake(), resume=True)(RECIPES)
    assert len([*(tmp_path / "runs").iterdir()]) == 2


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: 8)
    assert workers.threads_for(QUICK, None, 20) == (8, 1)
    assert workers.threads_for(QUICK, None, 3) == (3, 1)
    assert workers.threads_for(QUICK, 3, 20) == (3, 2)
    assert workers.threads_for(QUICK, 16, 20) == (16, 1)
    assert workers.threads_for(replace(QUICK, model="someone/large"), None, 20) == (1, 8)
    assert workers.threads_for(replace(QUICK, device="cuda"), None, 20) == (1, 8)


def test_a_lost_process_and_a_lost_cluster_in_words() -> None:
    from concurrent.futures.process import BrokenProcessPool

    pool, cluster = Pool(Fake(), lambda: 1), Pool(Fake(), lambda: 1, cluster=True)
    assert "fewer --processes" in str(workers.explain(BrokenProcessPool(), pool))
    assert str(workers.explain(OSError("gone\nmore"), cluster)) == "the cluster could not compute a run (OSError: gone)"
    error = KeyError("a bug")
    assert workers.explain(error, pool) is error


def without_time(runs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The records but for their timings, as JSON has them."""
    timed = ("seconds", "train_seconds", "setup_seconds")
    records = [[{k: v for k, v in one.items() if k not in timed} for one in run["records"]] for run in runs]
    return json.loads(json.dumps(records))


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Any]]:
    """The runs of RECIPES in this process, with one thread."""
    with workers.here(1) as pool:
        return [pool.executor.submit(workers.compute, recipe).result() for recipe in RECIPES]


@pytest.mark.parametrize(("learned", "loaded"), [((), 1), (("entities",), 3)], ids=["all heads there", "one learned"])
def test_a_process_loads_again_only_for_what_the_rate_changes(
    monkeypatch: pytest.MonkeyPatch, learned: tuple[str, ...], loaded: int
) -> None:
    asked: list[Recipe] = []

    def prepare(recipe: Recipe) -> SimpleNamespace:
        asked.append(recipe)
        return SimpleNamespace(learned=learned)

    monkeypatch.setattr(workers, "prepare", prepare)
    monkeypatch.setattr(workers, "_ready", {})
    changes: list[dict[str, Any]] = [{}, {"methods": "l2sp"}, {"seed": 3}, {"steps": 9, "every": 3}, {"limit": None}]
    for change in [*changes, {"lr": 1e-2}, {"lr": 1e-2, "seed": 1}, {"lr": 1e-2, "batch_size": 16}]:
        workers._bench(replace(QUICK, **change))
    assert len(asked) == loaded
    assert asked[0].lr == QUICK.lr  # the recipe's own, not what the key leaves out
    assert asked[0].limit == QUICK.limit
    workers._bench(replace(QUICK, new="acceptability"))
    assert len(asked) == loaded + 1


@pytest.mark.slow
def test_several_processes_give_the_same_bits(tmp_path: Path, alone: list[dict[str, Any]]) -> None:
    told: list[tuple[Recipe, int]] = []
    with workers.several(2, 1, lambda recipe, record: told.append((recipe, record.step))) as pool:
        assert pool.executor.submit(workers.facts, QUICK, True).result()["seconds"] > 0
        runs = Dispatcher(pool, RunFolder(tmp_path, QUICK, False))(RECIPES)
    assert without_time(runs) == without_time(alone)
    assert sorted(told, key=repr) == sorted(((r, step) for r in RECIPES for step in (0, 2, 4)), key=repr)


@pytest.mark.slow
def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "from forgetlab.experiments import workers\nimport os, time\n"
        "if __name__ == '__main__':\n"
        "    with workers.several(1, 1) as pool:\n"
        "        print(pool.executor.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child went on")


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Dask cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.long  # two more processes that load torch; the order and what is kept are tried with the other pools
def test_a_cluster_gives_every_run_once_though_a_worker_dies(
    tmp_path: Path, scheduler: Any, alone: list[dict[str, Any]]
) -> None:
    landed: list[str] = []
    killed: list[int] = []

    def on_run(run: dict[str, Any]) -> None:
        landed.append(run["key"])
        if len(landed) == 1:
            known = list(scheduler.scheduler.workers.values())
            busy = [worker for worker in known if worker.processing]  # none, if the second run has just ended too
            killed.append(scheduler.workers[(busy or known)[0].name].pid)
            os.kill(killed[0], signal.SIGKILL)

    with workers.cluster(scheduler.scheduler_address) as pool:
        runs = Dispatcher(pool, RunFolder(tmp_path, QUICK, False), on_run=on_run)(RECIPES)
    assert killed
    assert sorted(landed) == sorted(recipe.key() for recipe in RECIPES)
    assert without_time(runs) == without_time(alone)


def test_no_cluster_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ForgetlabError, match=r'--cluster needs Dask: pip install "forgetlab\[cluster\]"'):
        workers.cluster("tcp://127.0.0.1:1").__enter__()


@pytest.mark.slow
def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "PATIENCE", 1)
    before = threading.active_count()
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(ForgetlabError, match=f"no Dask scheduler answers at {address}"):
            workers.cluster(address).__enter__()
    assert threading.active_count() == before
