"""After the fact: mix the weights before and after a fine-tune, a remedy that needs no training (WiSE-FT)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, number
from forgetlab.models.model import Model
from forgetlab.training.method import Method, Run, Setting


@torch.no_grad()
def interpolate(model: Model, before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float) -> None:
    """Set a model's weights, in place, to θ = (1 − α) θ_before + α θ_after.

    before, after: snapshots of this model (`model.snapshot()`), on any device; its `state_dict()` too. alpha: 0 gives
    `before` and 1 `after`, both bit for bit; a finite number outside [0, 1] goes on along the line (task arithmetic,
    Ilharco et al. 2023).
    Weights in `after` only (new heads) are taken from there whole; so are tensors that are not floating point,
    except at α = 0.

    Raises ForgetlabError, with nothing changed, for another alpha and for a name or shape that does not fit.
    Source: Wortsman et al. 2022 (Robust fine-tuning of zero-shot models), eq. 1, where heads are mixed too.

    >>> start = model.snapshot()
    >>> interpolate(model, start, {name: weight + 1 for name, weight in start.items()}, alpha=0.25)
    >>> round((next(model.parameters()) - next(iter(start.values()))).mean().item(), 4)
    0.25
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ForgetlabError(f"alpha must be a finite number, from 0 (before) to 1 (after), got {alpha!r}")
    own = model.state_dict()
    _check_names(own, before, after)
    seen = set()
    for name, weight in own.items():
        storage = (weight.device, weight.data_ptr(), weight.shape)
        if storage in seen:  # tied: mixed once, or it would move twice
            continue
        seen.add(storage)
        end = after[name].to(weight)
        start = before.get(name, end).to(weight)
        weight.copy_(mixed(start, end, alpha if name in before else 1))


def mixed(before: Tensor, after: Tensor, alpha: float) -> Tensor:
    """θ_before + α (θ_after − θ_before) of a tensor, both ends bit for bit; of whole numbers θ_after unless α is 0.

    >>> mixed(torch.zeros(2), torch.ones(2), 0.25)
    tensor([0.2500, 0.2500])
    """
    if alpha in (0, 1) or not after.is_floating_point():
        return before if alpha == 0 else after  # exact even where the other end is not finite
    return torch.lerp(before, after, float(alpha))


class WeightInterpolation(Method):
    """Train as usual, then mix the result with the weights from before: θ ← (1 − α) θ* + α θ.

    alpha: share of the fine-tuned weights, in [0, 1]; 1 leaves the run as it is, 0 undoes it but for the new heads,
    which keep their trained values.
    The mixture replaces the weights after the last step: every record but the last shows the plain weights, the last
    one the mixture. A run that ends before its last step (stopped, closed, diverged) keeps the plain weights.
    Raises ForgetlabError for an alpha outside [0, 1].
    Source: Wortsman et al. 2022 (WiSE-FT), eq. 1. `interpolate` does the same to snapshots, for any number of alphas.

    >>> [*_, last] = finetune(model, new, methods=[WeightInterpolation(alpha=0)], steps=2)
    >>> last.drift
    0.0
    """

    name = "wise"
    family = "rates and stopping"
    main = Setting("alpha", high=1)

    def __init__(self, alpha: float = 0.5) -> None:
        self.alpha = number("alpha", alpha, 0, 1)

    @torch.no_grad()
    def after_step(self, run: Run) -> None:
        if run.step == run.steps and run.anchor:
            weights: list[Tensor] = [run.weights[name] for name in run.anchor]
            torch._foreach_lerp_(weights, list(run.anchor.values()), 1 - self.alpha)


def _check_names(own: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    for odd in sorted(own.keys() ^ after.keys()):
        where = "is in `after` but not in the model" if odd in after else "is in the model but not in `after`"
        raise ForgetlabError(f"{odd!r} {where}; expected a snapshot of this model with the heads that it has now")
    for odd in sorted(before.keys() - after.keys()):
        raise ForgetlabError(f"{odd!r} is in `before` but not in `after`; expected two snapshots of the same model")
    for which, weights in (("before", before), ("after", after)):
        for name, weight in weights.items():
            if weight.shape != own[name].shape:
                raise ForgetlabError(
                    f"{name!r} has the shape {[*weight.shape]} in `{which}`; the model's is {[*own[name].shape]}"
                )
