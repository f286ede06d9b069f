"""How long the command takes to answer where no model is needed: its help, and what it refuses.

python benchmarks/commands.py [--repeats 7]
Prints medians of seconds, and of multiples of starting Python.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from timing import seconds

ASKED = {
    "python, nothing": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "--help": ["-m", "forgetlab", "--help"],
    "a file that is not there": ["-m", "forgetlab", "compare", "--new", "nowhere.csv"],
    "a remedy that is not there": ["-m", "forgetlab", "compare", "--methods", "nothing-like-it"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in ASKED}
    for i in range(options.repeats + 1):
        for name, words in ASKED.items():
            run = [sys.executable, *words]
            value = seconds(lambda run=run: subprocess.run(run, capture_output=True), "cpu")
            taken[name] += [value] if i else []  # the first round reads the files from the disk
    for name, values in taken.items():
        times = statistics.median(a / b for a, b in zip(values, taken["python, nothing"], strict=True))
        print(f"{name:<28}{statistics.median(values):7.2f} s   {times:6.1f} × starting Python")


if __name__ == "__main__":
    main()
