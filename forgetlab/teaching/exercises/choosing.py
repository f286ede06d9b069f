"""Exercises of lesson 10: which remedies no other one beats, and how far seeds spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from forgetlab.teaching.exercises.checking import Verdict, diagnose

Points = Sequence[tuple[float, float]]
Beats = Callable[[tuple[float, float], tuple[float, float]], bool]


def check_pareto(function: Callable[[Points], list[int]]) -> Verdict:
    """Judge `function(points)`: the numbers, in rising order, of the points that no other one beats.

    points: (forgotten share, new score); less is better in the first, more in the second. One point beats another
    where it is no worse in both and better in at least one; equal points do not beat each other.
    """

    def front(beats: Beats, with_itself: bool = False) -> Callable[[Points], list[int]]:
        def found(points: Points) -> list[int]:
            rivals = [[q for j, q in enumerate(points) if with_itself or j != i] for i in range(len(points))]
            return [i for i, p in enumerate(points) if not any(beats(q, p) for q in rivals[i])]

        return found

    def no_worse(q: tuple[float, float], p: tuple[float, float]) -> bool:
        return q[0] <= p[0] and q[1] >= p[1]

    right = front(lambda q, p: no_worse(q, p) and q != p)
    mistakes = {
        "It takes forgetting as something to be had: more of it counts as better. The first number is what was lost, "
        "so less is better there.": front(lambda q, p: q[0] >= p[0] and q[1] >= p[1] and q != p),
        "It turns both axes: a low new score counts as better. Only the first number is one where less is "
        "better.": front(lambda q, p: q[0] <= p[0] and q[1] <= p[1] and q != p),
        "Beaten points are kept where they tie on one axis. To be as good in one and worse in the other is to be "
        "beaten: no worse in both, better in at least one.": front(lambda q, p: q[0] < p[0] and q[1] > p[1]),
        "Equal points beat each other, so that twins vanish together. A rival must be better in at least one of the "
        "two.": front(no_worse),
        "Every point is compared with itself, and as it is no worse than itself, none is left. A rival must be better "
        "in at least one of the two.": front(no_worse, with_itself=True),
        "Only the two winners are named, the least forgetting and the best score. A point between them that neither "
        "beats is on the front too.": lambda points: [
            i
            for i, p in enumerate(points)
            if right(points).count(i) and (p[0] == min(q[0] for q in points) or p[1] == max(q[1] for q in points))
        ],
        "These are the beaten points: the front is all the others.": lambda points: [
            i for i in range(len(points)) if i not in right(points)
        ],
        "It gives the points. Give their numbers, such as [0, 2].": lambda points: [points[i] for i in right(points)],
    }
    cases = [
        ([(0.5, 0.97), (0.1, 0.95), (0.0, 0.8), (0.3, 0.9), (0.05, 0.5)],),
        ([(0.2, 0.9), (0.2, 0.8), (0.1, 0.8), (0.3, 0.9)],),  # ties on one axis
        ([(0.1, 0.9), (0.1, 0.9), (0.4, 0.6), (0.0, 0.7)],),  # twins
    ]
    praise = "Right: no worse in both and better in one beats; twins stay, and so does every honest compromise."
    return diagnose(function, cases, right, mistakes, praise)


def check_spread(function: Callable[[Sequence[float]], tuple[float, float]]) -> Verdict:
    """Judge `function(scores)`: (mean, sample standard deviation) of one score a seed, for two seeds or more."""

    def mean_and(spread: Callable[[Sequence[float]], float]) -> Callable[[Sequence[float]], tuple[float, float]]:
        return lambda scores: (statistics.fmean(scores), spread(scores))

    right = mean_and(statistics.stdev)
    mistakes = {
        "The squares are divided by n. The mean was computed from the same seeds and lies closer to them than the "
        "true one: divide by n − 1, or three seeds look steadier than they are.": mean_and(statistics.pstdev),
        "This is the variance, in squared units: a square root is missing.": mean_and(statistics.variance),
        "This is the variance, and divided by n: a square root is missing, and n − 1.": mean_and(statistics.pvariance),
        "This is the standard error, the deviation over √n: how sure the mean is. The spread asked for is that of a "
        "single seed.": mean_and(lambda scores: statistics.stdev(scores) / math.sqrt(len(scores))),
        "This is the range, highest less lowest. It grows with every seed that is added; the standard deviation does "
        "not.": mean_and(lambda scores: max(scores) - min(scores)),
        "This is half the range. It depends on the two outermost seeds alone; square the distance of each one to the "
        "mean.": mean_and(lambda scores: (max(scores) - min(scores)) / 2),
        "The deviations are averaged without squares. That is the mean absolute deviation, another measure than the "
        "standard one.": mean_and(
            lambda scores: statistics.fmean([abs(score - statistics.fmean(scores)) for score in scores])
        ),
        "The first number is the median; the mean was asked for.": lambda scores: (
            statistics.median(scores),
            statistics.stdev(scores),
        ),
    }
    cases = [([0.957, 0.992, 0.973],), ([0.49, 0.5, 0.75, 0.8],), ([0.9, 0.6],)]
    praise = "Right: divided by n − 1, so that a few seeds do not look steadier than they are."
    return diagnose(function, cases, right, mistakes, praise)
