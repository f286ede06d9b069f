"""What peers give for the golden values: one row a peer and value, with its version.

python benchmarks/golden/peers.py [--venvs FOLDER] [--checkouts FOLDER] [--only NAME,…]
Each peers/NAME_values.py runs in FOLDER/NAME/bin/python where that is there, else in this Python; a peer that is not
installed is left out and named. Two are read from checkouts of their repositories. It writes
 results/golden-peers.{json,md}.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "golden-peers"
ASK = "import json, sys; sys.path[:0] = sys.argv[1:2]; import peers; print(json.dumps(peers.asked(sys.argv[2])))"


def asked(file: str) -> dict[str, Any]:
    """In the peer's Python: its name, version and rows."""
    from run import ABSENT, check, load

    module = load(file)
    try:
        version = importlib.metadata.version(module.PEER)
    except importlib.metadata.PackageNotFoundError:
        version = ""  # of a repository, which the name says
    rows = [row for row in check(module) if row["verdict"] != ABSENT]
    notes = getattr(module, "NOTES", {})
    return {
        "peer": module.PEER,
        "version": version,
        "rows": [row | {"note": notes.get(row["name"], "")} for row in rows],
    }


def run(name: str, venvs: Path | None, checkouts: Path | None) -> dict[str, Any] | str:
    """The peer's rows, or why there are none."""
    python = venvs / name / "bin" / "python" if venvs else None
    command = [str(python) if python and python.exists() else sys.executable, "-c", ASK, str(HERE)]
    room = os.environ | {"PYTHONPATH": "", "TOKENIZERS_PARALLELISM": "false"}
    room |= {"GOLDEN_CHECKOUTS": str(checkouts.resolve())} if checkouts else {}
    file = str(HERE / "peers" / f"{name}_values.py")
    done = subprocess.run([*command, file], env=room, capture_output=True, text=True, encoding="utf-8", timeout=300)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(peers: list[dict[str, Any]], absent: dict[str, str]) -> str:
    from run import OK, shown

    lines = [
        "| value | peer | verdict | what it computes | it gives | expected |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = sorted(((row, peer) for peer in peers for row in peer["rows"]), key=lambda pair: pair[0]["name"])
    for row, peer in rows:
        says = "; ".join(text for text in (row["says"], row["note"]) if text)
        numbers = [shown(row["got"]), shown(row["expected"])] if row["verdict"] != OK else ["", ""]
        who = f"{peer['peer']} {peer['version']}".strip()
        lines.append(
            "| " + " | ".join([f"`{row['name']}`", who, row["verdict"], says, *numbers]).replace("‖", "∥") + " |"
        )
    lines += ["", "Numbers are of the first input on which the two part. " + _left_out(absent)]
    return "\n".join(lines).strip()


def _left_out(absent: dict[str, str]) -> str:
    return "Not run here: " + "; ".join(f"{name} ({why})" for name, why in absent.items()) + "." if absent else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venvs", type=Path, help="a folder with a virtual environment for each peer")
    parser.add_argument("--checkouts", type=Path, help="a folder with checkouts: mammoth, peft")
    parser.add_argument("--only", help="names of peers, with commas between; the others' rows stay")
    given = parser.parse_args()
    known = sorted(file.stem.removesuffix("_values") for file in (HERE / "peers").glob("*_values.py"))
    kept = (
        json.loads(RESULT.with_suffix(".json").read_text(encoding="utf-8"))
        if given.only and RESULT.with_suffix(".json").exists()
        else {}
    )
    found, absent = kept.get("peers", {}), kept.get("absent", {})
    for name in given.only.split(",") if given.only else known:
        answer = run(name, given.venvs, given.checkouts)
        for store, fits in ((found, isinstance(answer, dict)), (absent, isinstance(answer, str))):
            store.pop(name, None)
            if fits:
                store[name] = answer
        print(name, answer if isinstance(answer, str) else len(answer["rows"]), flush=True)
    found = dict(sorted(found.items()))
    RESULT.with_suffix(".json").write_text(
        json.dumps({"peers": found, "absent": absent}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    text = table(list(found.values()), absent)
    RESULT.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
