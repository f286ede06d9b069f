"""`python -m forgetlab.labs.write [LAB …]`: record what labs show at once, on two processes of one thread each.

Killed, it goes on where it was: runs that are done wait in build/records until all are. Other code: delete that first.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from multiprocessing import get_context

import torch

from forgetlab import labs
from forgetlab.errors import ForgetlabError, one_of
from forgetlab.experiments import results
from forgetlab.labs import grids
from forgetlab.labs.kit.base import Lab, Settings
from forgetlab.labs.records import rounded, trimmed
from forgetlab.sources.json_files import read_json
from forgetlab.sources.shipped import data_folder
from forgetlab.sources.world.write import write_manifest

RECORDED = (*grids.GRIDS, "own")
AT_ONCE = 12  # runs that a process is given


def write(names: Sequence[str] = RECORDED, processes: int = 2) -> None:
    """Run every point of the labs' grids that is not in the cache folder; ship them in place of what was shipped.

    What labs keep beside, the runs without a remedy, is shipped too. Raises ForgetlabError for a name that is
    not in RECORDED, or where a run could not be kept.
    """
    for name in names:
        one_of("recorded lab", name, RECORDED)
    whole = set(names) == set(RECORDED)
    for name in [*(f"lab-{name}" for name in names), *(["plain"] if whole else [])]:
        results.record_file(name).unlink(missing_ok=True)
    jobs = [(name, share) for name in names for share in shares(name)]
    total, done, begun = sum(len(share) for _, share in jobs), 0, time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        try:
            for finished in as_completed([pool.submit(run, *job) for job in jobs]):
                name, count = finished.result()
                done += count
                print(f"{done} of {total} runs after {time.perf_counter() - begun:.0f} s ({name})", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else all others would be run before it is told
            raise
    for name in names:
        under = map(lab(name)._filed, grids.settings(name))
        results.record(f"lab-{name}", [(own, trimmed(results.get(f"lab-{name}", own))) for own in under])
    kept = [content for file in results.cache_folder().glob("plain-*.json") if (content := read_json(file))]
    plain = results.recorded("plain") + [(own["settings"], rounded(own["result"])) for own in kept]
    results.record("plain", {str(own): (own, result) for own, result in sorted(plain, key=str)}.values())


def shares(name: str) -> list[list[Settings]]:
    """A lab's grid as what a process is given at a time: runs of one seed, which share the run without a remedy."""
    by_seed: dict[int, list[Settings]] = {}
    for settings in grids.settings(name):
        by_seed.setdefault(settings["seed"], []).append(settings)
    return [own[i : i + AT_ONCE] for own in by_seed.values() for i in range(0, len(own), AT_ONCE)]


def run(name: str, share: Sequence[Settings]) -> tuple[str, int]:
    """Run a lab at these settings and keep each last state. Returns its name and how many they are."""
    for settings in share:
        under = lab(name)._filed(settings)
        if results.get(f"lab-{name}", under) is None:
            *_, state = lab(name)._work(settings)
            if trouble := results.put(f"lab-{name}", under, {k: v for k, v in state.items() if k != "progress"}):
                raise ForgetlabError(f"{name} at {settings}: {trouble}")
    return name, len(share)


@cache
def lab(name: str) -> Lab:
    """One for all runs of a process: a model is loaded once."""
    made = labs.show(name, driver="inline")
    assert isinstance(made, Lab)
    return made


one_thread = partial(torch.set_num_threads, 1)  # the numbers then do not depend on how many cores there are


if __name__ == "__main__":
    folder = data_folder().parent / "build/records"
    os.environ["FORGETLAB_CACHE"] = str(folder)
    write(sys.argv[1:] or RECORDED)
    shutil.rmtree(folder)
    write_manifest(data_folder())
