"""How much the test items say of a loss: two tests of a supposed loss, for answers that flip and for means of items.

`z(loss)` says by how many standard deviations the loss that was seen lies above `loss`; it is about standard normal
where `loss` is the true one. `end(z)` is the loss from which the seen one lies z above: an end of an interval.
All numbers may be arrays, of many test sets at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Many = float | Array  # one test set, or an array of many

Z95 = 1.644854  # 95 % of a normal distribution lies below
POWER = 0.8
HALVINGS = 35
DRAWS = 1000  # test sets at most, and at least a fifth
DRAWN = 400_000  # items in all of them
SMALL = 1e-12
NEARLY = 1 - 1e-12


@dataclass(frozen=True)
class Flipped:
    """n answers before and after, right or wrong: how many turned wrong (lost) and right (gained).

    loss: lost / n − gained / n. z is the score statistic of Tango 1998, eq. 24, whose variance is that under the
    supposed loss, so that it has a width where no answer flipped; with Laud's (2025) n − 1 in the variance, and with
    and without his correction for skewness: of the two the one nearer to 0, which claims less. Wald's and McNemar's
    intervals have no width without flips. Exact levels of a one-sided 5 % test, n from 20 to 400, up to a fifth gained:
    6.5 % of false alarms and 5.8 % of misses at worst, 4 % on average.
    """

    lost: Many
    gained: Many
    n: int

    @property
    def loss(self) -> Any:
        return (self.lost - self.gained) / self.n

    def z(self, loss: Many) -> Any:
        if isinstance(loss, (int, float)) and abs(loss) >= 1:  # no more can be lost, nor gained
            return np.full(np.shape(self.loss), -math.copysign(math.inf, loss))[()]
        plain, corrected = (tango(self.lost, self.gained, self.n, loss, skewed) for skewed in (False, True))
        return _nearer(plain, corrected)[()]

    def end(self, z: float) -> Any:
        low = np.full(np.shape(self.loss), -1.0)
        high = -low
        for _ in range(HALVINGS):  # z falls as the supposed loss rises
            middle = (low + high) / 2
            above = self.z(middle) > z
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return ((low + high) / 2)[()]

    def smallest(self) -> float:
        """The smallest loss that is found with 80 % power, where as many are gained as here: exact, by binomials."""
        return _smallest(float(self.gained), self.n)


@dataclass(frozen=True)
class Averaged:
    """A loss that is a function of means over items, by the items' shares in it: (..., n), centred.

    z is the score statistic of empirical likelihood: of all weights of the items under which the supposed loss is the
    true one, those that make the items likeliest (Owen 1988), and the variance under these weights, with n − 1 and
    Laud's (2025) correction for skewness; where items are right or wrong, that is Laud's test in `Flipped`. Beside it
    Student's t: of the two the one nearer to 0, which claims less. Student's alone is too short on the side of a few
    heavy items, the score alone where there are less than a dozen.
    freedom: degrees of freedom. up, down: how large a share in a loss and in a gain an item may have that was not seen:
    such items get weight where the seen ones cannot lose so much, so that there is a width where nothing changed.
    −inf: none may, as of perplexities, which have no largest value. bound: no loss is larger, up or down.
    """

    loss: Many
    of: Array = field(repr=False, compare=False)
    freedom: Many
    up: Many = -math.inf
    down: Many = -math.inf
    bound: float = math.inf

    @property
    def error(self) -> Any:
        """The standard error."""
        n = self.of.shape[-1]
        return np.sqrt(np.square(self.of).sum(-1) / (n * (n - 1))) if n > 1 else np.full(self.of.shape[:-1], np.inf)

    def z(self, loss: Many) -> Any:
        away = loss - np.asarray(self.loss)
        low, high = self._reach()
        with np.errstate(all="ignore"):  # an error of 0, or without end
            score = self._score(self._halved(lambda x: self._mean(x) < away))
            score = np.where((-low <= away) & (away <= high), score, np.where(away < 0, np.inf, -np.inf))
            t = np.nan_to_num(-away / self.error, posinf=np.inf, neginf=-np.inf)
        return _normal_of(np.where(self._open, _nearer(t, score), score), self.freedom)[()]

    def end(self, z: float) -> Any:
        t = _student_of(z, self.freedom)
        with np.errstate(all="ignore"):
            score = self._mean(self._halved(lambda x: self._score(x) > t))
            student = np.where(self._open, np.where(self.error > 0, -self.error * t, 0.0), score)
        away = np.minimum(student, score) if z > 0 else np.maximum(student, score)
        return np.clip(self.loss + away, -self.bound, self.bound)[()]

    @property
    def _open(self) -> Any:
        """Whether an item may lose without end."""
        return np.isneginf(self.up)

    def smallest(self) -> float:
        """The smallest loss that is found with 80 % power, of one test set.

        Of scores with a largest value: that of answers of which as many were gained as items here, by Σ u² / Σ |u| of
        their shares each (effective counts: Korn & Graubard 1998). Of others: what lifts 80 % of test sets drawn anew.
        """
        n = self.of.shape[-1]
        if self.up > 0:
            gained = float(np.maximum(-self.of - self.loss, 0.0).sum() / self.up)
            needed = _smallest(gained, n) * float(self.up)
        else:
            draws = min(max(DRAWN // n, DRAWS // 5), DRAWS)
            drawn = self.of[np.random.default_rng(0).integers(0, n, (draws, n))]
            mean = drawn.mean(-1)  # where nothing is lost
            ends = Averaged(mean, drawn - mean[:, None], self.freedom).end(Z95)
            needed = float(np.quantile(-ends, POWER, method="higher")) + 0.0
        return needed if needed < self.bound else math.inf

    def _reach(self) -> tuple[Array, Array]:
        """How far below and above the seen loss the items can bring it."""
        below = np.fmax(-self.of.min(-1), self.loss + self.down)
        return np.maximum(below, SMALL), np.maximum(np.fmax(self.of.max(-1), self.up - self.loss), SMALL)

    def _weights(self, x: Array) -> tuple[Array, Array, Array]:
        """The likeliest weights of the items, w ∝ 1 / (1 + r u); the weight of unseen ones, and their share u.

        x: r as a part of the largest with no weight below 0, from −1, little loss, to 1; to ±2 unseen ones take over.
        """
        low, high = self._reach()
        edge = np.where(x > 0, high, -low)
        weights = 1 / (1 - (np.minimum(np.abs(x), NEARLY) / edge)[..., None] * self.of)
        unseen = np.maximum(np.abs(x) - 1, 0.0)
        weights *= ((1 - unseen) / weights.sum(-1))[..., None]
        return weights, unseen, edge

    def _mean(self, x: Array) -> Array:
        weights, unseen, edge = self._weights(x)
        return np.einsum("...i,...i->...", weights, self.of) + unseen * edge

    def _score(self, x: Array) -> Array:
        """By how many standard deviations, under the weights at x, the seen loss is above what they bring."""
        n, (shares, unseen, edge), moments = self.of.shape[-1], self._weights(x), []
        for power in (1, 2, 3):
            shares *= self.of
            moments.append(shares.sum(-1) + unseen * edge**power)
        mean, squares, cubes = moments
        variance = np.maximum(squares - mean**2, SMALL**2)
        third = cubes - 3 * mean * squares + 2 * mean**3
        plain = -mean / np.sqrt(variance / (n - 1))
        return _nearer(plain, _unskewed(plain, third / variance**1.5 * (n - 1) ** 1.5 / n**2 / 6))

    def _halved(self, below: Callable[[Array], Any]) -> Array:
        """The x of each test set up to which `below` holds."""
        low = np.full(self.of.shape[:-1], -2.0)
        high = -low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            more = below(middle)
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        return (low + high) / 2


def _nearer(a: Any, b: Any) -> Any:
    """Of two numbers the one nearer to 0, or 0 between them."""
    return np.maximum(np.minimum(a, b), 0.0) + np.minimum(np.maximum(a, b), 0.0)


def _normal_of(t: Any, freedom: Many) -> Any:
    """Student's t → the normal z of the same tail, to 1 % from 5 degrees of freedom on. Source: Wallace 1959."""
    return np.sign(t) * (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(np.square(t) / freedom))


def _student_of(z: float, freedom: Many) -> Any:
    """The inverse of `_normal_of`; too large by a third for 1 degree of freedom, by 4 % for 2."""
    scaled = z * (8 * freedom + 3) / (8 * freedom + 1)
    return np.sign(z) * np.sqrt(freedom * np.expm1(np.square(scaled) / freedom))


def tango(lost: Many, gained: Many, n: int, loss: Many, skewed: bool = False, exact_n: bool = False) -> Any:
    """Tango's score statistic of a supposed loss, positive where more was lost than that.

    skewed: Laud's correction for skewness. exact_n: n in the variance as Tango has it, not n − 1.
    """
    # the share of gained answers that is likeliest where lost − gained is `loss`: the root of 2n q² + b q + c
    b, c = (2 * n - lost + gained) * loss - lost - gained, -gained * loss * (1 - loss)
    q = (np.sqrt(np.maximum(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    flips = 2 * np.clip(q, np.maximum(0.0, -np.asarray(loss)), (1 - np.asarray(loss)) / 2) + loss
    variance = np.maximum(flips - np.square(loss), SMALL) / (n if exact_n else max(n - 1, 0.5))
    z = ((lost - gained) / n - loss) / np.sqrt(variance)
    return _unskewed(z, (loss - 3 * loss * flips + 2 * loss**3) / n**2 / (6 * variance**1.5)) if skewed else z


def _unskewed(z: Any, a: Any) -> Any:
    """z = u + a (u² − 1), with a sixth of the mean's skewness a; solved for u."""
    return 2 * (z + a) / (1 + np.sqrt(np.maximum(1 + 4 * a * (z + a), 0.0)))


def _smallest(gained: float, n: int) -> float:
    """The loss at which P(z(0) > 1.645) is 80 %; gained: gained / n of all, or what room such a loss leaves."""
    k2 = Z95**2 * n / max(n - 1, 0.5)
    # z(0) > 1.645 where lost > gained + (k² + √(k⁴ + 8k² gained)) / 2
    if gained > 30:  # many: the binomials are normal
        c, needed = np.array([gained]), None
    else:
        c = np.arange(min(n, math.ceil(gained + 6 * math.sqrt(gained) + 6)) + 1.0)
        needed = np.floor(c + (k2 + np.sqrt(k2 * k2 + 8 * k2 * c)) / 2) + 1  # the fewest lost that are called so
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])

    def power(loss: float) -> float:
        share = min(gained / n, (1 - loss) / 2)
        if needed is None:
            flips = 2 * share + loss
            return normal((loss * n - math.sqrt(k2 * flips * n)) / math.sqrt(max(flips - loss * loss, SMALL) * n))
        found = 0.0
        for one, fewest in zip(c.astype(int), needed.astype(int), strict=True):
            lost = np.arange(fewest, n - one + 1)  # P(lost, gained) of a trinomial
            rest = n - one - lost
            logs = factorials[n] - factorials[one] - factorials[lost] - factorials[rest]
            logs = logs + one * _log(share) + lost * _log(share + loss) + rest * _log(1 - 2 * share - loss)
            found += float(np.exp(logs).sum())
        return found

    low, high = 0.0, 1.0
    if power(high) < POWER:
        return math.inf
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def _log(p: float) -> float:
    return math.log(max(p, 1e-300))


def normal(z: float) -> float:
    """The share of a standard normal distribution below z."""
    return 0.5 * math.erfc(-z / math.sqrt(2))
