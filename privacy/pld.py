"""Privacy loss distributions: the tight bound for a schedule that was fixed beforehand.

dp-accounting's PLD (Koskela et al. 2020; Doroshenko et al. 2022, connect-the-dots), rounded
pessimistically: every interval gives a valid upper bound, a finer one a smaller bound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dp_accounting.pld import PLDAccountant

from ..core.mechanism import Relation
from .events import RELATIONS, Step, Steps

COARSEST, FINEST = 1e-2, 1e-6
"""Discretizations of the privacy loss between which the interval is refined."""

CONVERGED = 0.01
"""A refinement that changes the figure by less than 1 % is the last one.

The error of connect-the-dots is quadratic in the interval (measured: 2.8e-2, 2.8e-4 at 1e-2,
1e-3), so what remains after such a tenfold step is about 1e-4 of the figure.
"""


def refined(
    figure: Callable[[Any], float], steps: Steps, relation: Relation
) -> tuple[float, float]:
    """Return a figure of the schedule's PLD and the interval at which it had converged.

    ``figure`` maps a privacy loss distribution to a bound that finer intervals only lower.
    """
    interval = COARSEST
    found = figure(distribution(steps, relation, interval))
    while True:
        interval /= 10
        finer = figure(distribution(steps, relation, interval))
        if abs(found - finer) <= CONVERGED * abs(finer) or interval < 2 * FINEST:
            return min(found, finer), interval
        found = finer


def distribution(steps: Steps, relation: Relation, interval: float) -> Any:
    """Return the PLD of at least one step at this interval (dp-accounting's object)."""
    (first, count), *others = steps
    total = _self_composed(first, count, relation, interval)
    for step, times in others:
        total = total.compose(_self_composed(step, times, relation, interval))
    return total


@lru_cache(maxsize=64)
def _self_composed(step: Step, count: int, relation: Relation, interval: float) -> Any:
    single = _single(step, relation, interval)
    return single if count == 1 else single.self_compose(count)


@lru_cache(maxsize=256)
def _single(step: Step, relation: Relation, interval: float) -> Any:
    accountant = PLDAccountant(RELATIONS[relation], value_discretization_interval=interval)
    accountant.compose(step.event)
    return accountant._pld  # the library has no public way to the distribution
