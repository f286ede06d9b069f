"""The directions that are held, against the singular value decomposition done anew after a run."""

import pytest
import torch

from forgetlab import ForgetlabError, finetune, task
from forgetlab.models.model import Model
from forgetlab.remedies import L2SP, OrthogonalSubspace


def _trained(bert: Model, *methods: object) -> dict[str, torch.Tensor]:
    run = finetune(bert, task("plain"), methods=methods, steps=6, lr=1e-2, limit=4)
    assert [*run][-1].status == "done"
    after = {name: p.detach().clone() for name, p in bert.named_parameters() if not name.startswith("heads.")}
    bert.restore()
    return after


def test_the_largest_singular_triples_stay_and_the_rest_moves(bert: Model) -> None:
    before = {name: p.detach().clone() for name, p in bert.named_parameters()}
    plain = _trained(bert)
    for name, w in _trained(bert, OrthogonalSubspace(share=0.25)).items():
        old = before[name]
        if w.ndim < 2:
            continue
        u, s, vh = torch.linalg.svd(old.double())
        k = round(0.25 * min(old.shape))
        for i in range(k):
            assert torch.allclose(w.double() @ vh[i], s[i] * u[:, i], atol=1e-5), name
            assert torch.allclose(u[:, i] @ w.double(), s[i] * vh[i], atol=1e-5), name
        if torch.equal(plain[name], old):
            continue
        assert not torch.allclose(w.double() @ vh[k], s[k] * u[:, k], atol=1e-4), name  # the next one is free
        assert not torch.allclose(plain[name].double() @ vh[0], s[0] * u[:, 0], atol=1e-4), name


def test_nothing_held_is_plain_fine_tuning_and_everything_held_leaves_the_vectors(bert: Model) -> None:
    before = {name: p.detach().clone() for name, p in bert.named_parameters()}
    plain, free, held = (
        _trained(bert),
        _trained(bert, OrthogonalSubspace(share=0)),
        _trained(bert, OrthogonalSubspace(1)),
    )
    for name, w in held.items():
        assert torch.equal(free[name], plain[name])
        if w.ndim == 2:
            assert torch.allclose(w, before[name], atol=1e-5)
    assert any(not torch.equal(held[name], before[name]) for name in held)  # norms and biases


def test_its_cost_and_what_it_refuses(bert: Model) -> None:
    first = next(finetune(bert, task("plain"), methods=[OrthogonalSubspace(0.5), L2SP()], steps=1, limit=4))
    matrices = [p for n, p in bert.named_parameters() if p.ndim == 2 and not n.startswith("heads.")]
    thin = sum(4 * (min(p.shape) // 2) * sum(p.shape) for p in matrices)
    assert first.costs["bytes"] == thin + sum(p.nbytes for n, p in bert.named_parameters() if n in bert.known_names)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ForgetlabError, match="share must be between 0 and 1"):
            OrthogonalSubspace(wrong)
