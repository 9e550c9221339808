"""Exact distributions of sums of small integers: the null laws of the conformance tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.stats import binom, hypergeom

TRIM = 1e-30
"""Probability that may be cut from each tail of a law; what is cut is added to every p-value."""

_WIDTH = 16.0  # standard deviations of a binomial's window: beyond lies less than TRIM
_DIRECT = 2e8  # products up to which a convolution is done term by term
_FFT_ERROR = 1e-14  # absolute error of a convolution of probabilities by FFT, charged
_LEVELS = 32  # a deviation is cut at this many of its own steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A distribution on integers: ``mass[k]`` is P(X = low + k); ``lost`` bounds the rest."""

    low: int
    mass: NDArray[np.float64]
    lost: float = 0.0

    @staticmethod
    def binomial(count: int, rate: float) -> Law:
        """Return Bin(count, rate) around its mean."""
        reach = _WIDTH * (count * rate * (1 - rate)) ** 0.5 + _WIDTH**2 / 3
        low = max(0, int(count * rate - reach))
        high = min(count, int(count * rate + reach) + 1)
        mass = binom.pmf(np.arange(low, high + 1), count, rate)
        lost = float(binom.cdf(low - 1, count, rate) + binom.sf(high, count, rate))
        return Law(low=low, mass=mass, lost=lost)

    @staticmethod
    def overlap(count: int, first: int, second: int) -> Law:
        """Return how many of ``count`` two independent uniform subsets of these sizes share."""
        low, high = max(0, first + second - count), min(first, second)
        mass = hypergeom.pmf(np.arange(low, high + 1), count, first, second)
        return Law(low=low, mass=mass).trimmed()

    def capped(self, cap: int) -> Law:
        """Return the law of min(X, cap)."""
        keep = max(0, cap - self.low)
        if keep >= len(self.mass):
            return self
        mass = np.append(self.mass[:keep], self.mass[keep:].sum())
        return Law(low=self.low if keep else cap, mass=mass, lost=self.lost)

    def squared_deviation(self, centre: int, width: int) -> Law:
        """Return the law of ``deviation(X, centre, width)`` squared."""
        values = np.arange(self.low, self.low + len(self.mass))
        squares = deviation(values, centre, width) ** 2
        return Law(
            low=0, mass=np.bincount(squares, weights=self.mass).astype(np.float64), lost=self.lost
        )

    def times(self, count: int) -> Law:
        """Return the law of the sum of ``count`` independent copies."""
        total, base = Law(low=0, mass=np.ones(1)), self
        while count:
            if count & 1:
                total = total + base
            count >>= 1
            if count:
                base = base + base
        return total

    def __add__(self, other: Law) -> Law:
        """Return the law of the sum of two independent variables."""
        lost = self.lost + other.lost
        if len(self.mass) * len(other.mass) <= _DIRECT:
            mass = np.convolve(self.mass, other.mass)
        else:
            mass = np.maximum(fftconvolve(self.mass, other.mass), 0.0)
            lost += _FFT_ERROR
        return Law(low=self.low + other.low, mass=mass, lost=lost).trimmed()

    def trimmed(self) -> Law:
        """Return the law without tails of probability below ``TRIM`` each."""
        first = int(np.searchsorted(np.cumsum(self.mass), TRIM))
        last = len(self.mass) - int(np.searchsorted(np.cumsum(self.mass[::-1]), TRIM))
        if first >= last or last - first == len(self.mass):
            return self
        cut = float(self.mass[:first].sum() + self.mass[last:].sum())
        return Law(low=self.low + first, mass=self.mass[first:last], lost=self.lost + cut)

    def two_sided(self, value: int) -> float:
        """Return an upper bound of the two-sided p-value of X = value, exact up to ``lost``."""
        place = value - self.low
        below = float(self.mass[: max(0, place + 1)].sum())
        above = float(self.mass[max(0, place) :].sum())
        return min(1.0, 2 * (min(below, above) + self.lost))


def total_of(laws: Iterable[Law]) -> Law:
    """Return the law of the sum of independent variables with these laws."""
    total = Law(low=0, mass=np.ones(1))
    for law in laws:
        total = total + law
    return total


def deviation(values: NDArray[np.integer], centre: int, width: int) -> NDArray[np.int64]:
    """Return (values - centre) in whole widths, cut at 32: a statistic with a small exact law."""
    steps = np.floor_divide(np.asarray(values, dtype=np.int64) - centre + width // 2, width)
    return np.clip(steps, -_LEVELS, _LEVELS)


def spread_p(values: NDArray[np.integer], law: Law) -> float:
    """Return the two-sided p-value of how far ``values`` (n,), iid from ``law``, scatter.

    The statistic is the sum of squared deviations from the law's mean, in steps of a sixth of
    its standard deviation; its law is an n-fold convolution.
    """
    support = np.arange(law.low, law.low + len(law.mass))
    mean = float(support @ law.mass)
    std = float(np.sqrt(max(0.0, (support - mean) ** 2 @ law.mass)))
    centre, width = round(mean), max(1, int(std / 6))
    statistic = int((deviation(values, centre, width) ** 2).sum())
    return law.squared_deviation(centre, width).times(len(values)).two_sided(statistic)
