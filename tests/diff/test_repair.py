"""A fine-tune in part undone: against the closed form on a quadratic, a slow search, and models that were saved."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forgetlab import load
from forgetlab.diff.repair import RepairFound, choose, repair, repair_html, repair_lines, save_repaired
from forgetlab.diff.repair_found import Look, budget
from forgetlab.diff.repair_shown import alt_text
from forgetlab.errors import ForgetlabError
from forgetlab.metrics.tally import Tally
from forgetlab.models.model import Model
from forgetlab.sources import Examples
from forgetlab.tasks import Task, task
from forgetlab.tasks.base import Scores

ITEMS = 40
POINTS: Any = {"name": "new", "metric": "accuracy"}
RATIO: Any = {"name": "new", "metric": "perplexity"}


class Bowl(Task):
    """A loss (x − lowest)² of one weight x, on items whose mean noise is 0 in the choosing part and in the rest."""

    metric, kind, higher_is_better = "kl", "bowl", False

    def __init__(self, name: str, lowest: float, shift: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(name, None, Examples(kind="text", texts=tuple(f"{i}" for i in range(ITEMS))))
        self.lowest, self.shift = lowest, shift

    def _scored(self, model: Any, limit: int | None) -> tuple[Scores, Tally | None]:
        rows = self.sample(limit)
        loss = (model.x.detach().double() - self.lowest) ** 2 + torch.zeros(len(rows))
        if self.shift is not None:
            loss = loss + self.shift(rows)
        items = torch.stack([loss, torch.ones(len(rows))], dim=1)
        return {"kl": float(loss.mean())}, Tally(("kl", "tokens"), items.double())

    def _collate(self, *_: Any) -> Any:
        raise NotImplementedError

    def logits(self, *_: Any) -> Any:
        raise NotImplementedError


class Line:
    """A pair of models of one weight: 0 before, 1 after."""

    def __init__(self) -> None:
        self.model: Any = nn.Module()
        self.model.x, self.model.heads, self.asked = nn.Parameter(torch.zeros(())), {}, list[float]()

    def between(self, after: str, share: Callable[[str, Tensor, Tensor], Tensor]) -> Any:
        with torch.no_grad():
            self.model.x.copy_(share("x", torch.tensor(0.0), torch.tensor(1.0)))
        self.asked.append(float(self.model.x))
        return self.model


@pytest.mark.parametrize("tenths", [1, 3, 5, 8])
def test_on_a_quadratic_it_is_the_closed_form(tenths: int) -> None:
    """Old loss α², new loss (1 − α)²: the least old loss within w is at α = 1 − √w, whatever the curve's scale."""
    share = tenths / 10
    found = repair(Line(), "after", [Bowl("old", 0)], Bowl("new", 1), within=share**2, few=10)
    assert found["alpha"] == pytest.approx(1 - share)
    for one in found["looks"]:
        assert one["old"] == pytest.approx(one["alpha"] ** 2, abs=1e-6)
        assert one["new"] == pytest.approx((1 - one["alpha"]) ** 2, abs=1e-6)
    new, old = found["tasks"]
    assert (new["before"], new["after"], new["repaired"]) == pytest.approx((1, 0, share**2), abs=1e-6)
    assert (old["before"], old["after"], old["repaired"]) == pytest.approx((0, 1, (1 - share) ** 2), abs=1e-6)
    assert old["to_after"] == pytest.approx([(1 - share) ** 2 - 1] * 3, abs=1e-6)
    assert old["to_before"] == pytest.approx([(1 - share) ** 2] * 3, abs=1e-6)


def test_it_is_chosen_on_few_texts_and_told_on_the_others() -> None:
    """Losses of the rest that would change every choice change none; what is told is theirs."""
    few = set(Bowl("new", 1).sample(10).tolist())
    rest = lambda rows: torch.tensor([0.0 if int(row) in few else 5.0 for row in rows])  # noqa: E731
    line = Line()

    def against(rows: Tensor) -> Tensor:
        return rest(rows) * (2 if 0.2 < float(line.model.x) < 0.9 else 1)

    plain = repair(Line(), "after", [Bowl("old", 0)], Bowl("new", 1), within=0.25, few=10)
    other = repair(line, "after", [Bowl("old", 0, rest)], Bowl("new", 1, against), within=0.25, few=10)
    assert plain["alpha"] == other["alpha"] == 0.5
    assert [one["old"] for one in plain["looks"]] == pytest.approx([one["old"] for one in other["looks"]])
    new = other["tasks"][0]
    assert (new["chosen_on"], new["scored_on"]) == (10, ITEMS - 10)
    assert new["repaired"] == pytest.approx(10.25, abs=1e-6)
    assert any("more than the budget" in line for line in repair_lines(other))
    assert not any("more than the budget" in line for line in repair_lines(plain))
