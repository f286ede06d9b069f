"""`--allow entities=0.02,general=1.1x`: how much each task may lose, and what follows for the exit status."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from forgetlab.errors import ForgetlabError, number, one_of, shown

if TYPE_CHECKING:
    from forgetlab.metrics.schema import TaskFacts

PRECISIONS = ("float32", "bfloat16", "float16")
STATUS = {None: 0, "fine": 0, "lost": 3, "not enough evidence": 4}
NUMBER = r"\d*\.?\d+x?|\d+\.x?"
SUCH = "--allow entities=0.02,general=1.1x: two points of a hundred, and a perplexity 1.1 times as high"


def parsed(text: str) -> dict[str, str]:
    """{task: allowance} of what stands behind --allow. Raises ForgetlabError for what is no allowance.

    >>> parsed("entities=0.02, general=1.1x")
    {'entities': '0.02', 'general': '1.1x'}
    """
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not equals or not name:
            raise ForgetlabError(f"--allow {shown(part)} names no task or no number; expected {SUCH}")
        if name in found:
            raise ForgetlabError(f"--allow names {shown(name)} twice")
        if not re.fullmatch(NUMBER, value):
            raise ForgetlabError(f"--allow {name}={value}: {shown(value)} is no allowance; expected {SUCH}")
        size = float(value.rstrip("x"))
        if value.endswith("x") and size < 1:
            raise ForgetlabError(f"--allow {name}={value}: a perplexity {size:g} times as high would be better; "
                                 f"expected 1x or more, such as {name}=1.1x")  # fmt: skip
        if not value.endswith("x") and size > 1:
            raise ForgetlabError(f"--allow {name}={value}: a score lies between 0 and 1; expected {SUCH}")
        found[name] = value
    if not found:
        raise ForgetlabError(f"--allow is empty; expected {SUCH}")
    return found


def allowances(given: Mapping[str, str], tasks: Sequence[TaskFacts]) -> dict[str, float]:
    """{task: the largest loss that is fine}, in points, or nats for a perplexity. Others are not gated.

    Raises ForgetlabError for a name that is no task's, and an allowance of the wrong kind.
    """
    facts = {task["name"]: task for task in tasks}
    found = {}
    for name, value in given.items():
        one_of("task in --allow", name, facts)
        factor, ratio = value.endswith("x"), facts[name].get("scale") == "ratio"
        if factor != ratio:
            metric = facts[name]["metric"]
            wanted = f"a factor, such as {name}=1.1x" if ratio else f"points of it, such as {name}=0.02"
            raise ForgetlabError(f"--allow {name}={value}: its score is {metric}; expected {wanted}")
        found[name] = math.log(float(value[:-1])) if factor else float(value)
    return found


def budget(value: str, new: TaskFacts | None = None) -> float:
    """`--within 0.01` or `1.02x` as a loss of the new score: points, or nats of a perplexity.

    Raises ForgetlabError for what is neither, and for a factor of a score that is no perplexity.

    >>> round(budget("1.02x"), 4), budget("0.01")
    (0.0198, 0.01)
    """
    such = "points of the new score, such as 0.01, or a factor of its perplexity, such as 1.02x"
    if not re.fullmatch(NUMBER, value):
        raise ForgetlabError(f"--within {shown(value)} is no budget; expected {such}")
    if not value.endswith("x"):
        return number("--within", float(value), 0, 1)
    if new is not None and new.get("scale") != "ratio":
        raise ForgetlabError(f"--within {value}: the score of {new['name']} is {new['metric']}; expected {such}")
    return math.log(number("--within", float(value[:-1]), 1, 2))


def worst(verdicts: Iterable[str | None]) -> str | None:
    """The verdict over several AFTERs: lost, if one is; None where nothing is gated.

    >>> worst(["fine", "not enough evidence"])
    'not enough evidence'
    """
    order = [None, "fine", "not enough evidence", "lost"]
    return max(verdicts, key=order.index, default=None)
