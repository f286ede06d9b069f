"""What words alone and a frozen tiny-bert know of reviews and of entailment: the table of docs/table-of-remedies.md.

python -m benchmarks.ceilings
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forgetlab import load, task
from forgetlab.models import Model
from forgetlab.sources import Examples
from forgetlab.tasks import Task

SHARES = (0, 0.25, 0.5, None, 0.75, 1)  # of turned reviews; None: the grammar's own
PENALTIES = (0.01, 0.1, 1.0)  # the best on the test texts counts: a ceiling


@torch.no_grad()
def features(model: Model, one: Task, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(texts, width) of a split: the first token's hidden state, and the mean of the text's."""
    encoded, first, mean = one.encoded(model, split), [], []
    for rows in torch.arange(len(encoded)).split(128):
        batch = encoded.take(rows)
        hidden, there = model.hidden(batch), batch["attention_mask"].unsqueeze(-1)
        first.append(hidden[:, 0])
        mean.append((hidden * there).sum(1) / there.sum(1))
    return torch.cat(first).numpy(), torch.cat(mean).numpy()


def texts(examples: Examples) -> list[str]:
    """What a bag of words sees: of a pair both sides."""
    if examples.pairs is None:
        return list(examples.texts)
    return [f"{a} {b}" for a, b in zip(examples.texts, examples.pairs, strict=True)]


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    model = load("tiny-bert")
    tasks = {"the grammar's own" if s is None else f"{s:g}": task("sentiment", turned=s) for s in SHARES}
    print("| turned | guesser | bag of words | linear probe, first token / mean of the text |\n|---|---|---|---|")
    for name, one in {**tasks, "(entailment)": task("entailment")}.items():
        one.prepare(model)
        labels, asked = one.train.labels, one.test.labels
        words = make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=2000))
        bag = words.fit(texts(one.train), labels).score(texts(one.test), asked)
        probes = []
        for seen, new in zip(features(model, one, "train"), features(model, one, "test"), strict=True):
            found = [make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, C=c)) for c in PENALTIES]
            probes.append(max(probe.fit(seen, labels).score(new, asked) for probe in found))
        print(f"| {name} | {one.guesser(model):.2f} | {bag:.2f} | {probes[0]:.2f} / {probes[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
