"""`python -m forgetlab.sources.world.write`: every data file anew, byte for byte, and the manifest of their hashes."""

from __future__ import annotations

import json
from pathlib import Path

from forgetlab.sources.shipped import data_folder, sha256
from forgetlab.sources.world.corpus import REGISTERS
from forgetlab.sources.world.examples import BUILDERS, rows

HELDOUT = ("entities", "sentiment", "acceptability", "entailment")  # not every register has held-out words
ZERO_SHOT = ("minimal-pairs", "cloze")


def write_tasks(folder: Path) -> None:
    """Write NAME.SPLIT.jsonl for every embedded task into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*BUILDERS, *(f"text:{register}" for register in REGISTERS)]:
        for split in ("train", "test", "heldout"):
            if (split == "heldout" and name not in HELDOUT) or (split == "train" and name in ZERO_SHOT):
                continue
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(name, split))
            (folder / f"{name.replace(':', '-')}.{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def write_manifest(root: Path) -> None:
    """Write the SHA-256 of every data file, by relative path."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "manifest.json")
    digests = {p.relative_to(root).as_posix(): sha256(p) for p in files}
    (root / "manifest.json").write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_tasks(data_folder() / "tasks")
    write_manifest(data_folder())
