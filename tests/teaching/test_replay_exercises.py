"""Each usual mistake in a replay memory or batch gets its own words."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from forgetlab.teaching.exercises import replay
from forgetlab.teaching.exercises.replay import check_mix, check_reservoir, check_turns


def words(faults: dict[str, str], name: str) -> str:
    return next(text for text, own in faults.items() if own == name)


# -- the memory -------------------------------------------------------------------------------------


def algorithm_r(stream: Any, memory: int, random: Random) -> list[int]:
    kept: list[int] = []
    for i, example in enumerate(stream):
        if i < memory:
            kept.append(example)
        elif (place := random.randint(0, i)) < memory:
            kept[place] = example
    return kept


def test_uniform_memories_pass() -> None:
    assert check_reservoir(algorithm_r)
    assert check_reservoir(by_lots)


def by_lots(stream: Any, memory: int, random: Random) -> list[int]:
    """Each example draws a lot; the lowest ones stay."""
    kept: list[tuple[float, int, Any]] = []
    for i, example in enumerate(stream):
        kept = sorted([*kept, (random.random(), i, example)], key=lambda lot: lot[:2])[:memory]
    return [example for *_, example in kept]


def newcomers(chance: Callable[[int, int], float], place: Callable[[int, Random], int] | None = None) -> Any:
    """A memory that lets the example with index i in by a chance, to a place."""

    def keep(stream: Any, memory: int, random: Random) -> list[int]:
        kept: list[int] = []
        for i, example in enumerate(stream):
            if i < memory:
                kept.append(example)
            elif random.random() < chance(i, memory):
                kept[place(memory, random) if place else random.randrange(memory)] = example
        return kept

    return keep


def oldest_goes(stream: Any, memory: int, random: Random) -> list[int]:
    kept: list[int] = []
    for i, example in enumerate(stream, start=1):
        if i <= memory:
            kept.append(example)
        elif random.random() < memory / i:
            kept = [*kept[1:], example]
    return kept


def too_small(stream: Any, memory: int, random: Random) -> list[int]:
    return algorithm_r(stream, memory, random)[:2]


def drawn_with_replacement(stream: Any, memory: int, random: Random) -> list[int]:
    everything = list(stream)
    return everything if len(everything) <= memory else random.choices(everything, k=memory)


MEMORIES = [
    (lambda stream, memory, random: list(stream)[:memory], "first"),
    (lambda stream, memory, random: list(deque(stream, maxlen=memory)), "last"),
    (newcomers(lambda i, m: 0.5), "constant"),
    (newcomers(lambda i, m: 1.0), "constant"),
    (newcomers(lambda i, m: 0.25), "constant"),
    (newcomers(lambda i, m: m / i), "low"),
    (newcomers(lambda i, m: m / (i + 2)), "high"),
    (newcomers(lambda i, m: 1 / (i + 1)), "one place"),
    (newcomers(lambda i, m: m / (i + 1), lambda m, random: 0), "place"),
    (oldest_goes, "place"),
    (newcomers(lambda i, m: 6 / (i + 1)), "late"),
    (newcomers(lambda i, m: 1.8 / (i + 1)), "early"),
    (too_small, "size"),
    (lambda stream, memory, random: list(stream), "size"),
    (drawn_with_replacement, "twice"),
    (lambda stream, memory, random: sorted(stream, key=lambda _: random.random())[:memory], "stored"),
    (lambda stream, memory, random: random.sample(all_ := list(stream), min(memory, len(all_))), "stored"),
]


@pytest.mark.parametrize(("keep", "name"), MEMORIES)
def test_each_wrong_memory_is_named(keep: Any, name: str) -> None:
    verdict = check_reservoir(keep)
    assert not verdict.passed
    assert verdict.words == words(replay.MEMORY_FAULTS, name)


def test_every_fault_of_a_memory_is_met() -> None:
    assert {name for _, name in MEMORIES} == set(replay.MEMORY_FAULTS.values())


# -- the batch --------------------------------------------------------------------------------------


def mixed(new: Any, old: Any, ratio: float, size: int, random: Random) -> list[str]:
    count = round(ratio * size)
    return random.sample(new, size - count) + random.sample(old, count)


BATCHES = [
    (
        lambda new, old, ratio, size, random: random.sample(new, size) + random.sample(old, round(ratio * size)),
        "on top",
    ),
    (lambda new, old, ratio, size, random: mixed(new, old, ratio, size, random)[1:], "size"),
    (
        lambda new, old, ratio, size, random: mixed(new, old, ratio / (1 + ratio), size, random),
        "of the new",
    ),
    (lambda new, old, ratio, size, random: mixed(new, old, 1 - ratio, size, random), "swapped"),
    (lambda new, old, ratio, size, random: random.sample(new, size), "share"),
    (lambda new, old, ratio, size, random: [*mixed(new, old, ratio, size, random)[:-1], "a third"], "foreign"),
    (
        lambda new, old, ratio, size, random: (
            random.choices(new, k=size - round(ratio * size)) + random.choices(old, k=round(ratio * size))
        ),
        "twice",
    ),
    (lambda new, old, ratio, size, random: mixed(new, old, ratio, size, Random(0)), "same"),
    (
        lambda new, old, ratio, size, random: (
            random.sample(new, size - round(ratio * size)) + old[: round(ratio * size)]
        ),
        "same",
    ),
]


def test_a_right_batch_passes() -> None:
    assert check_mix(mixed)


@pytest.mark.parametrize(("mix", "name"), BATCHES)
def test_each_wrong_batch_is_named(mix: Any, name: str) -> None:
    verdict = check_mix(mix)
    assert not verdict.passed
    assert verdict.words == words(replay.MIX_FAULTS, name)


def test_every_fault_of_a_batch_is_met() -> None:
    assert {name for _, name in BATCHES} == set(replay.MIX_FAULTS.values())


# -- turns ------------------------------------------------------------------------------------------


def carried(up: float) -> Callable[[int, float, int], list[int]]:
    def counts(size: int, ratio: float, steps: int) -> list[int]:
        found: list[int] = []
        for step in range(1, steps + 1):
            found.append(int(ratio * size * step + up + 1e-9) - sum(found))
        return found

    return counts


@pytest.mark.parametrize("up", [0.0, 0.3, 0.5, 0.9])
def test_either_way_of_rounding_the_total_passes(up: float) -> None:
    assert check_turns(carried(up))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
def test_the_counts_may_stand_in_an_array(kind: Any) -> None:
    assert check_turns(lambda *given: kind(carried(0.5)(*given)))
    assert not check_turns(lambda *given: kind([1] * given[2]))


TURNS = [
    (lambda size, ratio, steps: [round(size * ratio) for _ in range(steps)], "Each step is rounded for itself"),
    (lambda size, ratio, steps: [int(size * ratio) for _ in range(steps)], "Each step is cut"),
    (lambda size, ratio, steps: [-int(-size * ratio // 1) for _ in range(steps)], "Each step is rounded up"),
    (lambda size, ratio, steps: [size * ratio for _ in range(steps)], "There is no part of an example"),
    (lambda size, ratio, steps: [int(size * ratio * i + 1e-9) for i in range(1, steps + 1)], "Those are the totals"),
    (lambda size, ratio, steps: [size - x for x in carried(0.0)(size, ratio, steps)], "Those are the new"),
]


@pytest.mark.parametrize(("counts", "start"), TURNS)
def test_each_wrong_count_is_named(counts: Any, start: str) -> None:
    verdict = check_turns(counts)
    assert not verdict.passed
    assert verdict.words.startswith(start)
    assert len(TURNS) == len(replay.TURN_FAULTS)


# -- what is no answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [check_reservoir, check_mix, check_turns])
def test_what_is_no_answer_is_said(check: Any) -> None:
    def raises(*given: Any) -> Any:
        raise KeyError("places")

    assert "returns nothing yet" in check(lambda *given: None).words
    assert "returns nothing yet" in check(lambda *given: ...).words
    asked = "Called with (4, 0.1, 20), it" if check is check_turns else "It"
    assert check(raises).words == f"{asked} raised KeyError: 'places'"
    assert check([1, 2]).words.startswith("Expected a function, got list")
    assert not check(lambda *given: [7] * 3)
    assert not check(lambda *given: 5)
