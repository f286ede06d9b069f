"""Remedies that change what is trained instead of how."""

from __future__ import annotations

from forgetlab.methods import Group, Method, Run


class Frozen(Method):
    """Train the new head only: the backbone and every old head stay bit-identical, so nothing is forgotten.

    What the frozen features do not carry cannot be learned.
    """

    name = "frozen"

    def parameter_groups(self, groups: list[Group], run: Run) -> list[Group]:
        kept, old = [], set(run.weights.values())
        for group in groups:
            pairs = [(n, p) for n, p in zip(group["names"], group["params"], strict=True) if p not in old]
            if pairs:
                kept.append({**group, "names": [n for n, _ in pairs], "params": [p for _, p in pairs]})
        return kept
