"""Any Python function as a reward: what it returns is checked, and what goes wrong in it is said in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetlab.errors import ForgetlabError, shown

Reward = Callable[[list[str]], Sequence[float]]


def rewards_of(name: str, reward: Reward, texts: list[str]) -> Tensor:
    """(N,) float64 rewards of texts; raises ForgetlabError where the function raises or gives anything else."""
    try:
        given = reward(list(texts))
    except ForgetlabError:
        raise
    except Exception as error:
        raise ForgetlabError(
            f"{name}: the reward raised {type(error).__name__} ({error}) {_where(reward, texts)}"
        ) from error
    try:
        values = list(given)
    except TypeError:
        raise ForgetlabError(
            f"{name}: the reward returned {shown(given)}; expected a list of {len(texts)} numbers, one for each text"
        ) from None
    if len(values) != len(texts):
        raise ForgetlabError(f"{name}: the reward returned {len(values)} numbers for {len(texts)} texts")
    numbers = [_number(value) for value in values]
    for text, value, found in zip(texts, values, numbers, strict=True):
        if not math.isfinite(found):
            raise ForgetlabError(f"{name}: the reward of {shown(text)} is {shown(value)}; expected a finite number")
    return torch.tensor(numbers, dtype=torch.float64)


def _where(reward: Reward, texts: list[str]) -> str:
    """Which text a reward fails on, asked of one at a time."""
    for text in texts:
        try:
            reward([text])
        except Exception:
            return f"on the text {shown(text)}"
    return f"on {len(texts)} texts at once, on none of them alone"


def _number(value: Any) -> float:
    """As a float, true and false as 1 and 0; nan for what is no number, a text among it."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan
