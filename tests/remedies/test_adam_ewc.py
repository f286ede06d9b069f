"""Adam's second moment as a Fisher, against gradients squared by hand and the per-example Fisher."""

import pytest
import torch

from forgetlab import ForgetlabError, finetune, load, task
from forgetlab.importance import fisher_diagonal
from forgetlab.models.model import Model
from forgetlab.remedies import AdamEWC, adam_importance
from forgetlab.training.method import Run


def test_it_is_the_corrected_mean_of_squared_gradients() -> None:
    w, idle = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.ones(3))
    adam, v, gradients = torch.optim.AdamW([w, idle], betas=(0.9, 0.5)), torch.zeros(2), torch.randn(4, 2)
    for g in gradients:
        w.grad = g.clone()
        adam.step()
        v = 0.5 * v + 0.5 * g**2
    found = adam_importance(adam, [("w", w), ("idle", idle)], batch_size=8)
    assert torch.allclose(found["w"], 8 * v / (1 - 0.5**4))
    assert found["idle"].tolist() == [0, 0, 0]
    with pytest.raises(ForgetlabError, match="SGD holds no squared gradients"):
        adam_importance(torch.optim.SGD([w], lr=0.1), [("w", w)], 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["acceptability", "masked-lm"])  # one prediction a text, and several
def test_it_ranks_the_weights_as_the_fisher_does_and_has_its_scale(name: str) -> None:
    model, old = load("tiny-bert"), task(name)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flags = [p.requires_grad for p in model.parameters()]
    run = Run.begin(model, task("plain"), 1, 32, 1e-3, 0)
    found = AdamEWC([old], examples=480).importance(run)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())
    assert [p.requires_grad for p in model.parameters()] == flags
    exact = fisher_diagonal(model, old, examples=480, estimator="empirical")
    a, b = (torch.cat([one[name].flatten() for name in run.weights if "heads" not in name]) for one in (found, exact))
    ranks = torch.stack([one[b > 0].argsort().argsort().double() for one in (a, b)])
    assert torch.corrcoef(ranks)[0, 1] > 0.65
    assert 0.7 < a.sum() / b.sum() < 1.4


def test_a_recorded_state_and_a_pass_over_old_texts_both_pull(bert: Model) -> None:
    old, new = task("masked-lm"), task("plain")
    given = {name: torch.ones_like(p) for name, p in bert.named_parameters()}
    for fisher in (given, [old]):
        [*_, last] = finetune(bert, new, methods=[AdamEWC(fisher, lam=10, examples=64)], steps=3, limit=4)
        assert last.penalty["ewc-adam"] > 0
        bert.restore()
