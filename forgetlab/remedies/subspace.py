"""Orthogonal subspace: what is learned stays out of the directions in which the old matrices do most."""

from __future__ import annotations

import torch
from torch import Tensor

from forgetlab.errors import number
from forgetlab.training.method import Method, Run, Setting


class OrthogonalSubspace(Method):
    """Keep the change of every matrix out of the largest singular directions of what it was.

    W₀ = U Σ Vᵀ; after each step ΔW ← (I − U_k U_kᵀ) ΔW (I − V_k V_kᵀ), so that the k largest singular values of W₀ and
    their vectors are still such of W: W v_i = σ_i u_i and Wᵀ u_i = σ_i v_i. No old data is needed.

    share: k as a share of each matrix's smaller side, 0 to 1. Embeddings are matrices too; biases and norms, which have
    no directions, move freely, and so does the new head. Costs two thin matrices a weight.
    Raises ForgetlabError for another share.
    Source: Xiong & Xie 2025 (OPLoRA, arXiv 2510.13003), whose two-sided projection this is, there of LoRA's B A; Nayak
    et al. 2025 (OSF, arXiv 2504.07097) project the gradients of the small singular vectors off U_k and V_k likewise.

    >>> w = model.get_parameter("body.bert.encoder.layer.0.output.dense.weight")
    >>> u = torch.linalg.svd(w)[0][:, 0].detach()  # the largest direction
    >>> before = u @ w
    >>> [*_, last] = finetune(model, new, methods=[OrthogonalSubspace(share=0.5)], steps=2)
    >>> torch.allclose(u @ w, before, atol=1e-5), last.drift > 0
    (True, True)
    """

    name = "orthogonal"
    family = "weights held"
    main = Setting("share", 0, 0.95)

    def __init__(self, share: float = 0.5) -> None:
        self.share = number("share", share, 0, 1)
        self._held: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def setup(self, run: Run) -> None:
        self._held = {}
        for name, anchor in run.anchor.items():
            if anchor.ndim == 2 and name in run.weights and (k := round(self.share * min(anchor.shape))):
                u, _, vh = torch.linalg.svd(anchor.float(), full_matrices=False)
                self._held[name] = u[:, :k].to(anchor), vh[:k].T.to(anchor)

    @torch.no_grad()
    def after_step(self, run: Run) -> None:
        for name, (u, v) in self._held.items():
            p = run.weights[name]
            if p.requires_grad:
                change = p - run.anchor[name]
                change -= u @ (u.T @ change)
                change -= (change @ v) @ v.T
                torch.add(run.anchor[name], change, out=p)

    def costs(self, run: Run) -> dict[str, float]:
        return {"bytes": float(sum(u.nbytes + v.nbytes for u, v in self._held.values()))}
