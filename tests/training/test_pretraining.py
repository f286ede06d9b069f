"""Pre-training is reproducible, learns, and refuses too little text; the shipped cards say what was shipped."""

import math
from dataclasses import replace

import pytest
import torch

from forgetlab import ForgetlabError, load, task
from forgetlab.sources.shipped import data_folder
from forgetlab.training import pretraining


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt"])
def test_the_same_seed_gives_the_same_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pretraining.SHIPPED, name, replace(pretraining.SHIPPED[name], texts=300, batch=16, tasks=()))
    models = []
    for _ in range(2):
        torch.rand(3)  # the global generator has no say in it
        *_, (_, _, model) = pretraining.pretrain(name, steps=3)
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_a_model_on_own_text_learns_it() -> None:
    passages = [f"the fox number {i} ran over the hill ." for i in range(120)]
    *_, (_, loss, model) = pretraining.pretrain_on(passages, steps=60)
    assert loss < 0.25 * math.log(len(model.tokenizer))  # a model that knows nothing: the logarithm of the vocabulary
    with pytest.raises(ForgetlabError, match="99 passages given, 100 or more expected"):
        next(pretraining.pretrain_on(passages[:99]))


@pytest.mark.parametrize(("name", "scored"), [("tiny-bert", "masked-lm"), ("tiny-gpt", "causal-lm")])
def test_the_card_says_what_the_shipped_model_scores(name: str, scored: str) -> None:
    model, one = load(name, device="cpu"), task(scored)
    card = (data_folder() / "models" / name / "README.md").read_text(encoding="utf-8")
    (line,) = [row.split("|") for row in card.splitlines() if row.startswith(f"| {scored} |")]
    assert float(line[3]) == pytest.approx(one.score(model)["perplexity"], abs=0.0011)
    assert float(line[4]) == pytest.approx(one.floor, abs=0.0006)
