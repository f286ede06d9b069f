"""`python -m forgetlab.labs.write`: run each training lab at its opening settings, so that it opens on a result."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any

import torch

from forgetlab import labs
from forgetlab.errors import ForgetlabError
from forgetlab.experiments import results
from forgetlab.labs.kit.base import Lab
from forgetlab.sources.json_files import read_json, write_json
from forgetlab.sources.shipped import data_folder
from forgetlab.sources.world.write import write_manifest

DIGITS = 5


def write(names: Iterable[str] = labs.LABS) -> list[str]:
    """Run labs and ship what they keep, in place of all that was shipped; returns the names of the files.

    The cache folder (FORGETLAB_CACHE) must be an empty one: all that the labs put there is shipped, such as the run
    without a remedy too. Raises ForgetlabError for a cache that is not empty, or where a lab says that it failed.
    """
    cache, shipped = results.cache_folder(), results.shipped_folder()
    if any(cache.glob("*.json")):
        raise ForgetlabError(f"{cache} holds results already; set FORGETLAB_CACHE to an empty folder")
    for stale in shipped.glob("*.json"):
        stale.unlink()
    for name in names:
        lab = labs.show(name, driver="inline")
        if not isinstance(lab, Lab) or lab.instant:
            continue
        lab.train()
        if lab.state is None or "error:" in lab.message.value:
            raise ForgetlabError(f"the lab {name} failed: {lab.message.value}")
        print(f"{name}: {lab.state.get('message', 'done')}", flush=True)
    files = sorted(cache.glob("*.json"))
    shipped.mkdir(parents=True, exist_ok=True)
    for file in files:
        content = read_json(file)
        assert content is not None, file  # written a moment ago
        write_json(shipped / file.name, {**content, "result": rounded(content["result"])})
    return [file.name for file in files]


def rounded(value: Any) -> Any:
    """The same plain value with every float cut to DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(own) for key, own in value.items()}
    return [rounded(own) for own in value] if isinstance(value, list) else value


if __name__ == "__main__":
    torch.set_num_threads(1)  # the numbers then do not depend on how many cores there are
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FORGETLAB_CACHE"] = folder
        write()
    write_manifest(data_folder())
