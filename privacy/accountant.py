"""From executed mechanisms to epsilon and back; nothing here ever sees a record.

A schedule that was fixed beforehand (one signed plan) is accounted by privacy loss
distributions, and the smaller of that and the Renyi bound holds. Plans chosen after the outputs
of earlier ones were known are bounded by the Renyi filter alone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq

from ..core.errors import InvalidInput
from ..core.mechanism import Relation
from . import pld, rdp
from .events import Spend, Step, Steps, relation_of, steps_of

LEAST_NOISE, MOST_NOISE = 0.2, 10_000.0
"""Range of calibration: below, the accounting takes minutes; above, it is a plan's mistake."""

_ONE_AT_A_TIME = threading.Lock()
"""Sites of one simulation ask for the same figure at the same time: all but one then find it."""

_ROUNDING = 1e4  # calibrated noise multipliers are rounded up to 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The smallest valid epsilon of a schedule and how it was found.

    ``interval`` is the discretization at which the privacy loss distribution had converged.
    """

    epsilon: float
    method: Literal["pld", "rdp", "renyi-filter", "none"]
    interval: float = 0.0
    pld: float = 0.0
    rdp: float = 0.0


def epsilon_of(spend: Spend, delta: float) -> float:
    """Return the epsilon of all these steps composed, at this delta.

    The mechanisms may differ in noise, sampling and cap, not in unit or relation: those raise
    ``InvalidInput``. No step costs nothing; a step without noise costs ``inf``. Valid for one
    plan: what was chosen later, knowing outputs, needs ``filter_epsilon``.
    """
    return bound_of(spend, delta).epsilon


def bound_of(spend: Spend, delta: float) -> Bound:
    """Return the smallest valid bound of one plan's schedule: PLD, refined, or Renyi."""
    steps, relation = steps_of(spend), relation_of(spec for spec, _ in spend)
    with _ONE_AT_A_TIME:
        return _bound(steps, relation, delta)


def filter_epsilon(spend: Spend, delta: float) -> float:
    """Return the epsilon that holds when later mechanisms were chosen knowing earlier outputs."""
    steps, relation = steps_of(spend), relation_of(spec for spec, _ in spend)
    return _filtered(steps, relation, delta)


def enforced_bound(spends: Mapping[Any, Spend], delta: float) -> Bound:
    """Return the bound that an asset's cap is held against; ``spends`` by (job, plan).

    One job under one plan is a schedule that was fixed beforehand: its smallest valid bound. A
    second one may have been chosen after looking at what the first released: the Renyi filter
    decides. An asset that moves from the one to the other, by what was seen, may fail with up
    to twice delta (a union bound; the statement says so).
    """
    used = [spend for spend in spends.values() if spend]
    together = [row for spend in used for row in spend]
    if len(used) > 1:
        return Bound(epsilon=filter_epsilon(together, delta), method="renyi-filter")
    return bound_of(together, delta)


def delta_of(spend: Spend, epsilon: float) -> float:
    """Return the smallest delta at which the schedule is (epsilon, delta)-private."""
    steps, relation = steps_of(spend), relation_of(spec for spec, _ in spend)
    if not steps:
        return 0.0
    if _unprotected(steps):
        return 1.0
    return pld.refined(lambda found: found.get_delta_for_epsilon(epsilon), steps, relation)[0]


def detection_of(spend: Spend, false_positive_rate: float) -> float:
    """Return the largest true positive rate of any membership test at that false positive rate.

    TPR <= min over epsilon of delta(epsilon) + exp(epsilon) FPR (Dong, Roth & Su 2022).
    """
    steps, relation = steps_of(spend), relation_of(spec for spec, _ in spend)
    if not steps:
        return false_positive_rate
    if _unprotected(steps):
        return 1.0
    grid = np.linspace(0.0, max(1.0, -math.log(false_positive_rate)), 400)

    def largest(found: object) -> float:
        deltas = np.asarray(found.get_delta_for_epsilon(list(grid)))  # pyright: ignore[reportAttributeAccessIssue]
        return float(np.min(deltas + np.exp(grid) * false_positive_rate))

    return min(1.0, pld.refined(largest, steps, relation)[0])


@lru_cache(maxsize=256)
def calibrate(
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    relation: Relation = "add-or-remove-one",
    batch_cap: int = 0,
    public_records: int = 0,
    beside: Steps = (),
    spent: Steps = (),
) -> float:
    """Return the smallest noise multiplier, rounded up to 1e-4, that keeps steps within epsilon.

    ``public_records`` is the number of units that truncated sampling needs; ``beside`` are other
    steps of the same plan; ``spent`` is what earlier plans have used of the same budget, so that
    the result is for what is left of it (Renyi filter). Raises ``InvalidInput`` when nothing is
    left or no noise multiplier below 10,000 is enough.
    """
    sizes = (batch_cap, public_records) if batch_cap else (0, 0)

    def excess(noise_multiplier: float) -> float:
        own = (Step(noise_multiplier, sampling_rate, *sizes), steps)
        if spent:
            return _filtered(_joined((own, *beside, *spent)), relation, delta) - epsilon
        return _bound(_joined((own, *beside)), relation, delta).epsilon - epsilon

    if excess(LEAST_NOISE) <= 0:
        return LEAST_NOISE
    low, high = LEAST_NOISE, 1.0
    while excess(high) > 0:
        low, high = high, high * 2
        if high > 2 * MOST_NOISE:
            raise InvalidInput(
                f"no noise multiplier keeps {steps} steps within epsilon {epsilon:g}",
                why=f"even {MOST_NOISE:,.0f} is not enough at delta {delta:g}"
                + (", beside what is already spent" if spent or beside else ""),
                cure="raise epsilon or delta, or take fewer rounds",
            )
    root: Any = brentq(excess, low, high, xtol=1e-6)
    rounded = math.ceil((float(root) - 1e-4) * _ROUNDING)
    while excess(rounded / _ROUNDING) > 0:
        rounded += 1
    return rounded / _ROUNDING


@lru_cache(maxsize=4096)
def _bound(steps: Steps, relation: Relation, delta: float) -> Bound:
    if not steps:
        return Bound(epsilon=0.0, method="none")
    if _unprotected(steps):
        return Bound(epsilon=math.inf, method="none", pld=math.inf, rdp=math.inf)
    tight, interval = pld.refined(lambda found: found.get_epsilon_for_delta(delta), steps, relation)
    second = rdp.epsilon(steps, relation, delta)
    return Bound(
        epsilon=min(tight, second),
        method="pld" if tight <= second else "rdp",
        interval=interval,
        pld=tight,
        rdp=second,
    )


@lru_cache(maxsize=4096)
def _filtered(steps: Steps, relation: Relation, delta: float) -> float:
    if not steps:
        return 0.0
    return math.inf if _unprotected(steps) else rdp.epsilon(steps, relation, delta)


def _unprotected(steps: Steps) -> bool:
    return any(step.noise_multiplier <= 0 for step, _ in steps)


def _joined(steps: Steps) -> Steps:
    counts: dict[Step, int] = {}
    for step, count in steps:
        counts[step] = counts.get(step, 0) + count
    return tuple(sorted(counts.items()))
