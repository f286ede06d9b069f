"""The search for strengths on made-up scores and a made-up clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from forgetlab.errors import ForgetlabError
from forgetlab.experiments.plan import seconds, spoken
from forgetlab.experiments.search import End, Pair, Search

SEEDS = (0, 1, 2)


class World:
    """Runs that take a second each: the stronger, the more is kept and the less is learned.

    A remedy's curve is kept = s / (s + soft) of its setting s; what it learns falls from 1 to 0 around `hard`.
    """

    def __init__(self, budget: float = math.inf, cost: float = 1.0) -> None:
        self.budget, self.cost, self.now = budget, cost, 0.0
        self.asked: list[Pair] = []

    def __call__(self, pairs: Sequence[Pair], share: float) -> Mapping[Pair, End]:
        found: dict[Pair, End] = {}
        for pair in pairs:
            if self.now + self.cost <= share * self.budget:
                self.now += self.cost
                self.asked.append(pair)
                found[pair] = self.end(*pair)
        return found

    def end(self, spec: str, seed: int) -> End:
        name, _, setting = spec.partition(":")
        if name == "none":
            return 0.3, 0.99
        if name == "frozen":
            return 1.0, 0.05
        if name == "si":
            return None
        s = float(setting.partition("=")[2])
        soft, hard = {"l2sp": (0.03, 1.7), "ewc": (0.07, 300.0)}[name]
        return s / (s + soft) + 0.001 * seed, hard / (s + hard)


def setting(spec: str | None) -> float:
    assert spec is not None
    return float(spec.partition("=")[2])


def test_it_finds_the_weakest_strength_that_keeps_enough() -> None:
    world = World()
    search = Search(["l2sp", "ewc", "none", "frozen", "si"], SEEDS, 0.95, world)
    best = search.run()
    # kept = 0.95 at s = 19 · soft: 0.57 for l2sp, 1.33 for ewc; three rounds halve the decade around it three times
    assert 0.57 <= setting(search.best("l2sp")) < 0.57 * 10**0.25
    assert 1.33 <= setting(search.best("ewc")) < 1.33 * 10**0.25
    assert [spec.partition(":")[0] for spec in best] == ["ewc", "l2sp", "frozen", "none", "si"]
    assert search.told() == []


def test_plain_comes_first_coarse_strengths_before_fine_ones_and_the_seeds_at_the_end() -> None:
    world = World()
    search = Search(["l2sp", "ewc"], SEEDS, 0.95, world)
    search.run()
    assert world.asked[:3] == [("none", 0), ("l2sp:strength=1", 0), ("ewc:strength=1", 0)]
    assert {setting(spec) for spec, _ in world.asked[3:7]} == {0.1, 10.0}
    seeds = [seed for _, seed in world.asked]
    assert seeds == sorted(seeds, key=bool)  # every other seed comes after the search
    assert len(world.asked) == len(set(world.asked))
    last = {spec for spec, seed in world.asked if seed}
    assert last == {"none", search.best("l2sp"), search.best("ewc")}


def test_beyond_an_end_it_goes_on() -> None:
    class Far(World):
        def end(self, spec: str, seed: int) -> End:
            return (0.3, 0.99) if spec == "none" else (min(0.99, setting(spec) / 700), 0.9)

    search = Search(["ewc"], (0,), 0.95, Far())
    search.run()
    assert setting(search.best("ewc")) > 650  # 10 is the strongest of the coarse ones


def test_a_method_with_its_settings_is_taken_as_it_is() -> None:
    world = World()
    Search(["ewc:lam=7", "frozen"], (0,), 0.95, world).run()
    assert world.asked == [("none", 0), ("ewc:lam=7", 0), ("frozen", 0)]


@pytest.mark.parametrize("budget", [1, 2, 5, 9, 14, 20])
def test_the_budget_is_kept_and_what_was_left_out_is_said(budget: float) -> None:
    world = World(budget)
    search = Search(["l2sp", "ewc", "frozen", "si"], SEEDS, 0.95, world)
    search.run()
    assert world.now <= budget
    assert search.told()
    assert all(line.startswith("left out for lack of time: ") for line in search.told())
    if budget == 2:
        assert search.told()[0] == "left out for lack of time: ewc, frozen, si (not tried at all)"
    if budget >= 5:  # a first try of each comes before anything else
        assert [spec.partition(":")[0] for spec, _ in world.asked[:5]] == ["none", "l2sp", "ewc", "frozen", "si"]


def test_the_order_depends_on_what_was_found_only() -> None:
    class Backwards(World):
        def __call__(self, pairs: Sequence[Pair], share: float) -> Mapping[Pair, End]:
            return dict(reversed(list(super().__call__(pairs, share).items())))  # as processes may finish

    orders = []
    for kind in (World, Backwards):
        world = kind()
        Search(["l2sp", "ewc", "frozen", "si"], SEEDS, 0.95, world).run()
        orders.append(world.asked)
    assert orders[0] == orders[1]


def test_times_in_words() -> None:
    assert [seconds(text) for text in ("90s", "10m", "1.5h", " 2 M ")] == [90, 600, 5400, 120]
    for text in ("", "10", "m", "-1m", "0s", "1d", "nan", "ten minutes"):
        with pytest.raises(ForgetlabError, match="--budget must be a time"):
            seconds(text)
    assert [spoken(t) for t in (0.44, 12.3, 300, 8000)] == ["0.4 s", "12 s", "5 min", "2.2 h"]
