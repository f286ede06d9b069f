"""The search for strengths on made-up scores and a made-up clock, and what is recommended, by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from forgetlab.choosing import End, Pair, Search, recommend
from forgetlab.comparing import seconds, spoken
from forgetlab.errors import ForgetlabError
from forgetlab.frontier import Dot

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
    if budget == 5:  # half of it is for the usual strengths: two runs
        assert search.told()[0] == "left out for lack of time: ewc, frozen, si (not tried at all)"


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


def dot(spec: str, kept: list[float], new: list[float], diverged: int = 0) -> Dot:
    return {"name": spec, "spec": spec, "family": "none", "kept": kept, "new": new, "diverged": diverged}


PLAIN = dot("none", [0.30, 0.32, 0.34], [0.99, 0.99, 0.99])
REPLAY = dot("replay", [0.97, 0.98, 0.99], [0.95, 0.96, 0.97])
FROZEN = dot("frozen", [1.0, 1.0, 1.0], [0.04, 0.05, 0.06])
EWC = dot("ewc", [0.90, 0.90, 0.90], [0.965, 0.965, 0.965])


def test_what_keeps_enough_and_learns_most_is_recommended_with_its_evidence() -> None:
    lines = recommend([PLAIN, FROZEN, REPLAY, EWC], 0.95)
    assert lines[0] == (
        "To keep ≥ 95 % of the old scores: replay (keeps 98 ±1 %, learns 0.96 ±0.01 of the new task; 3 seeds)."
    )
    assert lines[-1] == "Plain fine-tuning: keeps 32 ±2 %, learns 0.99 ±0.00 of the new task; 3 seeds."
    assert len(lines) == 2
    lower = recommend([PLAIN, FROZEN, REPLAY, EWC], 0.9)
    assert lower[0].startswith("To keep ≥ 90 % of the old scores: ewc (")
    assert lower[1].startswith("Within the spread of that, so that the choice between them may be luck: replay (")


def test_where_nothing_keeps_enough_the_nearest_is_named() -> None:
    lines = recommend([PLAIN, EWC], 0.95)
    assert lines[0].startswith(
        "Nothing that was tried keeps ≥ 95 % of the old scores: ewc comes nearest (keeps 90 ±0 %"
    )


def test_what_keeps_all_and_learns_nothing_is_called_that() -> None:
    assert "next to nothing" in recommend([PLAIN, FROZEN], 0.95)[0]
    weak = [dot("none", [0.99] * 2, [0.0, 0.02]), dot("frozen", [1.0] * 2, [0.0, 0.0])]
    assert recommend(weak, 0.95)[0].startswith("Nothing learns the new task here (0.01 of it at most)")


def test_no_remedy_is_better_than_plain_fine_tuning() -> None:
    worse = dot("l2sp", [0.31, 0.33, 0.35], [0.9, 0.9, 0.9])
    assert recommend([PLAIN, worse], 0.95)[-1].startswith("No remedy beats plain fine-tuning here")
    harmless = dot("none", [0.98, 0.99, 1.0], [0.95, 0.96, 0.97])
    assert recommend([harmless, REPLAY], 0.95)[-1].startswith("No remedy is needed for that")
    better = dot("replay", [0.98, 0.99, 1.0], [0.99, 0.99, 0.99])
    assert not any("No remedy" in line for line in recommend([harmless, better], 0.95))


def test_one_seed_is_said_and_a_lucky_one_does_not_win() -> None:
    assert any(
        "One seed only" in line for line in recommend([dot("none", [0.3], [0.9]), dot("ewc", [1.0], [0.9])], 0.9)
    )
    lucky = dot("mas", [0.99], [0.999])
    assert recommend([PLAIN, REPLAY, lucky], 0.95)[0].split("scores: ")[1].startswith("replay")
    assert recommend([PLAIN, EWC, lucky], 0.95)[0].split("scores: ")[1].startswith("mas (keeps 99 %")


def test_an_edge_diverged_seeds_and_nothing_watched_are_said() -> None:
    near = dot("replay", [0.94, 0.96, 0.98], [0.9, 0.9, 0.9], diverged=1)
    (first, *_) = recommend([PLAIN, near], 0.95)
    assert "1 more diverged" in first
    assert first.endswith("Its spread reaches below 95 %.")
    assert recommend([dot("none", [], [], diverged=3)], 0.95)[0].startswith("Every run diverged")
    assert "Nothing was watched" in recommend([PLAIN], 0.95, watched=False)[0]


def test_times_in_words() -> None:
    assert [seconds(text) for text in ("90s", "10m", "1.5h", " 2 M ")] == [90, 600, 5400, 120]
    for text in ("", "10", "m", "-1m", "0s", "1d", "nan", "ten minutes"):
        with pytest.raises(ForgetlabError, match="--budget must be a time"):
            seconds(text)
    assert [spoken(t) for t in (0.44, 12.3, 300, 8000)] == ["0.4 s", "12 s", "5 min", "2.2 h"]
