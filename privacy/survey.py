"""One noised linear query over a site's records: common statistics, and scores by class.

Bounding what a unit contributes (``StatisticsQuery.sums``, ``shares_of``) and adding noise
(``noised``) are two steps. What follows from the sums of all sites (``common``) is
post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..core.plan_model import Bounds
from .noise import Floats, NoiseStream
from .units import Units

Records = NDArray[Any]

LEAST_VARIANCE = 1e-4
"""Of a feature scaled to [-1, 1]: a constant one would be divided by nothing."""
LEAST_SCALE = 1e-2
"""Its root: the least deviation by which a model's first layer may divide."""

_ROWS = 1 << 14  # records whose contributions are in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsQuery:
    """What one record adds to the sums of common statistics: [1, present, u, 1 - u^2, one-hots].

    u in [-1, 1] is a number clipped to its public bounds and scaled by them; ``present`` is there
    only where numbers may be missing, and a missing one adds 0 to all three. Squares are summed
    as 1 - u^2, because u^2 + (1 - u^2)^2 <= 1: the L2 norm of a feature's pair is at most 1,
    where (u, u^2) reaches the root of 2, and the same is known.
    ``numbers`` counts the columns before the categories, ``sizes`` the categories of each column.
    """

    names: tuple[str, ...]
    bounds: tuple[Bounds, ...]
    missing: bool
    numbers: int
    sizes: tuple[int, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan) -> StatisticsQuery:
        """Return the query of a plan with ``[statistics]``."""
        asked, model = plan.statistics, plan.model
        normalise = asked is not None and asked.normalise
        counts = asked is not None and asked.vocabulary
        return cls(
            names=tuple(model.bounds) if normalise else (),
            bounds=tuple(model.bounds.values()) if normalise else (),
            missing=model.missing != "refuse",
            numbers=len(model.bounds),
            sizes=tuple(len(known) for known in model.categories.values()) if counts else (),
            categories=tuple(model.categories) if counts else (),
        )

    @property
    def size(self) -> int:
        """Return the number of sums."""
        return 1 + len(self.bounds) * (3 if self.missing else 2) + sum(self.sizes)

    @property
    def sensitivity(self) -> float:
        """Return the largest L2 norm of what one unit adds."""
        return math.sqrt(1 + len(self.bounds) * (2 if self.missing else 1) + len(self.sizes))

    def rows(self, x: Records) -> Floats:
        """Return what each record of (n, columns) raw values adds: (n, size), norm bounded."""
        parts = [np.ones((len(x), 1))]
        if self.bounds:
            low, high = np.array(self.bounds, dtype=np.float64).T
            raw = x[:, : self.numbers].astype(np.float64)
            here = ~np.isnan(raw)
            u = 2 * (np.clip(np.where(here, raw, low), low, high) - low) / (high - low) - 1
            u = np.clip(u, -1.0, 1.0)  # rounding must not exceed the bound
            parts += [here.astype(np.float64)] if self.missing else []
            parts += [np.where(here, u, 0.0), np.where(here, 1 - u * u, 0.0)]
        for place, size in enumerate(self.sizes):
            column = np.nan_to_num(x[:, self.numbers + place].astype(np.float64), nan=-1.0)
            parts.append((column[:, None] == np.arange(size)[None, :]).astype(np.float64))
        return np.concatenate(parts, axis=1)

    def sums(self, x: Records, units: Units) -> Floats:
        """Return the sum (size,) over units; each adds the mean of its records' rows, float64."""
        total = np.zeros(self.size)
        records, shares = shares_of(units)
        for start in range(0, len(records), _ROWS):
            part = slice(start, start + _ROWS)
            total += shares[part] @ self.rows(x[records[part]])
        return total


def shares_of(units: Units) -> tuple[NDArray[np.intp], Floats]:
    """Return the records (n,) of all units and each one's share (n,) of its unit.

    A unit of k records gives 1 / k to each: where a record adds a one-hot times its share, a
    unit adds a vector of L1 norm 1, and the L2 sensitivity is 1.
    """
    rows, owners = units.rows_of(np.arange(len(units)))
    if owners is None:
        return rows, np.ones(len(rows))
    return rows, 1.0 / np.bincount(owners, minlength=len(units))[owners]


def noised(spec: MechanismSpec, sums: Floats, stream: NoiseStream) -> Floats:
    """Return the sums with noise of ``spec.noise_std`` on each (Gaussian mechanism).

    Dwork & Roth 2014, Appendix A; ``spec.clip_norm`` is the query's sensitivity.
    """
    if spec.noise_multiplier <= 0:
        return sums
    return sums + stream.normal(len(sums)) * spec.noise_std


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Statistics over all sites: ``mean`` and ``scale`` (numbers,) in [-1, 1] units.

    ``counts`` (categories,) are noised records of each category, all features after each other;
    ``records`` is the noised number of units, at least 1.
    """

    records: float
    mean: Floats
    scale: Floats
    counts: Floats

    def kept(self, min_count: float) -> Floats:
        """Return 1 for each category with at least ``min_count`` records, else 0."""
        return (self.counts >= min_count).astype(np.float64)


def common(
    query: StatisticsQuery, sums: Sequence[Floats], *, noise_std: float, most: float = math.inf
) -> Common:
    """Return the statistics that follow from all sites' sums (size,), in float64.

    ``noise_std`` is that of one coordinate of the total, ``most`` the public number of units. With
    it 0 these are the pooled mean and the pooled deviation (divided by n). A variance is at
    least its noise's standard error ``noise_std / n`` (what cannot be told from 0 must not be
    divided by) and ``LEAST_VARIANCE``; a scale at most 1, the largest that bounds allow.
    """
    total = np.sum(np.asarray(sums, dtype=np.float64), axis=0)
    records = float(min(max(total[0], 1.0), max(most, 1.0)))
    mean, scale = _moments(query, total, records, noise_std)
    counts = total[len(total) - sum(query.sizes) :]
    return Common(records=records, mean=mean, scale=scale, counts=counts)


def drifting(
    query: StatisticsQuery,
    sums: Floats,
    found: Common,
    *,
    noise_std: float,
    errors: float = 3.0,
    deviations: float = 0.5,
) -> list[str]:
    """Return the features whose mean at one site is another than the common one.

    By more than ``errors`` standard errors of this site's noise and ``deviations`` common
    deviations: names alone, no value.
    """
    records = max(float(sums[0]), 1.0)
    mean, _ = _moments(query, sums, records, noise_std)
    error = noise_std / records * np.sqrt(1 + mean**2)
    apart = np.abs(mean - found.mean)
    far = (apart > errors * error) & (apart > deviations * found.scale)
    return [name for name, is_far in zip(query.names, far, strict=True) if is_far]


def _moments(
    query: StatisticsQuery, total: Floats, records: float, noise_std: float
) -> tuple[Floats, Floats]:
    numbers, start = len(query.bounds), 1
    present = np.full(numbers, records)
    if query.missing:
        present = np.maximum(total[1 : 1 + numbers], 1.0)
        start += numbers
    mean = np.clip(total[start : start + numbers] / present, -1.0, 1.0)
    below_one = total[start + numbers : start + 2 * numbers] / present  # mean of 1 - u^2
    floor = np.maximum(LEAST_VARIANCE, noise_std / present)
    variance = np.clip(1.0 - below_one - mean**2, floor, None)
    return mean + 0.0, np.sqrt(np.minimum(variance, 1.0))
