"""Renyi divergences: the second accountant, and the filter for plans chosen after the fact.

Integer orders alone: dp-accounting's series for fractional ones do not always converge.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from numpy.typing import NDArray
from scipy.stats import binom

from ..core.mechanism import Relation
from .events import RELATIONS, Step, Steps

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512)

Curve = NDArray[np.float64]
"""(orders,) Renyi divergence of one step at each of ``ORDERS``."""


def epsilon(steps: Steps, relation: Relation, delta: float) -> float:
    """Return the epsilon of the schedule by Renyi divergences.

    Valid also when each mechanism was chosen after seeing the outputs of the earlier ones:
    the smallest over a fixed set of orders is the Renyi filter's bound (Feldman & Zrnic 2021;
    Lecuyer 2021). Conversion: Canonne, Kamath & Steinke 2020, Proposition 12.
    """
    plain, mixed, cut = np.zeros(len(ORDERS)), np.zeros(len(ORDERS)), 0.0
    for step, count in steps:
        curve = _curve(step, relation)
        plain += count * curve
        mixed += count * _truncated(curve, step)
        cut += count * _cut_probability(step)
    found = _convert(mixed, delta)
    # Or charge the chance that any step was cut to delta, and count every step as uncut.
    return min(found, _convert(plain, delta - cut)) if 0 < cut < delta else found


def _convert(curve: Curve, delta: float) -> float:
    return float(compute_epsilon(list(ORDERS), list(curve), delta)[0])


@lru_cache(maxsize=256)
def _curve(step: Step, relation: Relation) -> Curve:
    return _replaced(step) if relation == "replace-one" else _sampled(step, ORDERS)


def _sampled(step: Step, orders: tuple[int, ...]) -> Curve:
    accountant = RdpAccountant(list(orders), RELATIONS["add-or-remove-one"])
    gaussian = dp_event.GaussianDpEvent(step.noise_multiplier)
    accountant.compose(dp_event.PoissonSampledDpEvent(step.sampling_rate, gaussian))
    return np.asarray(accountant._rdp, dtype=np.float64)


def _replaced(step: Step) -> Curve:
    """Return a bound for replacing one unit: by way of the data set without it, or unsampled.

    Mironov 2017, Proposition 11 with p = q = 2: D_a(P|R) <= (a - 1/2)/(a - 1) D_2a(P|Q) +
    D_(2a-1)(Q|R). Unsampled: a Gaussian of sensitivity 2 (mixtures only bring P and R closer).
    """
    alpha = np.array(ORDERS, dtype=np.float64)
    there = _sampled(step, tuple(2 * order for order in ORDERS))
    back = _sampled(step, tuple(2 * order - 1 for order in ORDERS))
    by_way = (alpha - 0.5) / (alpha - 1) * there + back
    return np.minimum(by_way, alpha * 2.0 / step.noise_multiplier**2)


def _truncated(plain: Curve, step: Step) -> Curve:
    """Return the curve of truncated Poisson sampling: a mixture over 'the cap was reached'.

    exp((a - 1) D_a) is jointly convex; when the cap is reached, two units change by up to 2 C
    each way, so an unsampled Gaussian at distance 4 C bounds it (dp-accounting: the same split).
    """
    alpha = np.array(ORDERS, dtype=np.float64)
    cut = _cut_probability(step)
    if cut == 0.0:
        return plain
    worst = alpha * 8.0 / step.noise_multiplier**2
    rest = np.log1p(-cut) if cut < 1 else -math.inf
    return np.logaddexp(rest + (alpha - 1) * plain, np.log(cut) + (alpha - 1) * worst) / (alpha - 1)


def _cut_probability(step: Step) -> float:
    """Return the chance that a step is cut at its cap, given that one unit was sampled."""
    if not step.batch_cap:
        return 0.0
    return float(binom.sf(step.batch_cap - 1, step.public_records - 1, step.sampling_rate))
