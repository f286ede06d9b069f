"""How much the test items say of a loss: two tests of a supposed loss, for answers that flip and for means of items.

`z(loss)` says by how many standard deviations the loss that was seen lies above `loss`; it is about standard normal
where `loss` is the true one. `end(z)` is the loss from which the seen one lies z above: an end of an interval.
All numbers may be arrays, of many test sets at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetlab.metrics.uncertainty import resampled

Array = NDArray[np.float64]
Many = float | Array  # one test set, or an array of many

Z95 = 1.644854  # 95 % of a normal distribution lies below
POWER = 0.8
HALVINGS = 50
SMALL = 1e-12
SMALLEST = 1e-200


@dataclass(frozen=True)
class Flipped:
    """n answers before and after, right or wrong: how many turned wrong (lost) and right (gained).

    loss: lost / n − gained / n. z is the score statistic of Tango 1998, eq. 24, whose variance is that under the
    supposed loss, so that it has a width where no answer flipped; with Laud's (2025) n − 1 in the variance, and with
    and without his correction for skewness: of the two the one nearer to 0, which claims less. Exact levels of a
    one-sided 5 % test, worst over flip rates up to 40 %: 6.6 % with n from 20 to 400, mean 4.5 %. Wald's and
    McNemar's intervals have no width without flips.
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
    """A loss that is a function of means over items, with the standard error of its jackknife.

    z is Student's t, as it is and after Hall's (1992) cubic transformation, which corrects it for the skewness that a
    few heavy items leave: of the two the one nearer to 0, which claims less. freedom: degrees of freedom.
    skew: Σu³ / (Σu²)^1.5 of the items' shares u in the loss. bound: no loss is larger, up or down.
    An error of 0: each item is the same before and after, or moves alike.
    """

    loss: Many
    error: Many
    freedom: Many
    skew: Many
    bound: float = math.inf

    def z(self, loss: Many) -> Any:
        with np.errstate(all="ignore"):  # an error of 0, or without end
            t = np.nan_to_num((np.asarray(self.loss) - loss) / self.error, posinf=np.inf, neginf=-np.inf)
            k = _away(self.skew)
            hall = ((1 + k * t / 3) ** 3 - 1) / k + k / 6  # t + k t²/3 + k² t³/27 + k/6
            return _normal_of(_nearer(t, np.where(np.isfinite(hall), hall, t)), self.freedom)[()]

    def end(self, z: float) -> Any:
        with np.errstate(invalid="ignore"):
            found = self.loss - np.where(np.asarray(self.error) > 0, self.error * self.t(z), 0.0)
        return np.clip(found, -self.bound, self.bound)[()]

    def t(self, z: float) -> Any:
        """How many standard errors away from the loss the end at z lies."""
        t, k = _student_of(z, self.freedom), _away(self.skew)
        hall = 3 / k * (np.cbrt(1 + k * (t - k / 6)) - 1)
        return np.maximum(t, hall) if z > 0 else np.minimum(t, hall)


@dataclass(frozen=True)
class Shares:
    """A loss and how much of it comes from each item: (..., n), centred; and the items' weights.

    Degrees of freedom: (Σw²)² / Σw⁴ − 1, which is n − 1 for items of one weight (Satterthwaite 1946).
    added: squares of two more items, one lost and one gained, which leave the error a width where nothing changed.
    """

    loss: Array
    of: Array
    weights: Array
    added: Array
    bound: float = math.inf

    def test(self) -> Averaged:
        return self._test(self.loss, self._powers().sum(-2))

    def smallest(self) -> float:
        """The smallest loss that is found with 80 % power, of one test set: what lifts 80 % of test sets drawn anew.

        Drawn from the items as they are (and the two added ones), each with so much more or less of a loss that their
        mean loss is this one.
        """
        two = np.sqrt(self.added / 2) * np.array([1.0, -1.0]) if self.added else np.zeros(0)
        items = replace(self, of=np.append(self.of, two), weights=np.append(self.weights, np.ones(len(two))))
        found = items._test(np.zeros(()), resampled(items._powers()).numpy()).end(Z95)  # where nothing is lost
        needed = float(np.quantile(-found, POWER, method="higher")) + 0.0
        return needed if needed < self.bound else math.inf

    def _powers(self) -> Array:
        w = self.weights / self.weights.mean(-1, keepdims=True)
        return np.stack([self.of, self.of**2, self.of**3, w, w**2, w**4], axis=-1)

    def _test(self, loss: Array, powers: Array) -> Averaged:
        """powers: (..., 6) sums of the shares, of their squares and cubes, of w, w² and w⁴."""
        n = self.of.shape[-1]
        total, squares, cubes, w1, w2, w4 = np.moveaxis(powers, -1, 0)
        mean, freedom = total / n, np.maximum(w2**2 / w4 - 1, 1.0)
        cubes = cubes - 3 * mean * squares + 2 * n * mean**3
        squares = np.maximum(squares - n * mean**2, 0.0) + self.added
        error = np.sqrt(squares / (n * (n - 1))) if n > 1 else np.full(mean.shape, np.inf)
        skew = np.clip(cubes / np.maximum(squares, SMALLEST) ** 1.5, -1.0, 1.0)  # no further, but for rounding
        return Averaged(loss + total / w1, error * n / w1, freedom, skew, self.bound)


def _nearer(a: Any, b: Any) -> Any:
    """Of two numbers the one nearer to 0, or 0 between them."""
    return np.maximum(np.minimum(a, b), 0.0) + np.minimum(np.maximum(a, b), 0.0)


def _away(skew: Many) -> Array:
    """From 0, where the transformation is its own limit."""
    return np.where(np.abs(skew) < 1e-6, 1e-6, skew)


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
    if not skewed:
        return z
    # z = u + a (u² − 1), with a sixth of the mean's skewness a; solved for u
    a = (loss - 3 * loss * flips + 2 * loss**3) / n**2 / (6 * variance**1.5)
    root = np.sqrt(np.maximum(1 + 4 * a * (z + a), 0.0))
    return 2 * (z + a) / (1 + root)


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
