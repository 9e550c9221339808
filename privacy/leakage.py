"""How much can an attacker tell? Lower bounds on epsilon from canaries' scores, and ROC figures.

A canary was in with probability 1/2, independently; a higher score says 'in'. Two bounds are
strict: one-run (Steinke, Nasr & Jagielski 2023, https://arxiv.org/abs/2305.08846) for the
claimed (epsilon, delta), and f-DP one-run (Mahloujifar, Melis & Chaudhuri 2024,
https://arxiv.org/abs/2410.22235) for the claimed trade-off curve. GDP Clopper-Pearson (Nasr et
al. 2023, https://arxiv.org/abs/2302.07956) assumes a Gaussian curve: an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_ndtr, ndtr, ndtri
from scipy.stats import beta, binom

Floats = NDArray[np.float64]
InverseBlowUp = Callable[[float], float]
"""Smallest probability under one data set of an event that has this much under its neighbour."""

_TOLERANCE = 1e-6
_MOST = 100.0  # epsilon above which nothing is searched


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """What one threshold says of ``canaries``: how many it calls 'in', and how many rightly."""

    canaries: int
    made: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """Bounds at one confidence on what canaries' scores give away.

    ``one_run`` is strict for the claimed (epsilon, delta). ``f_dp`` reads the f-DP bound on
    the Gaussian curve; ``refuted`` is its strict form: the claimed curve itself is impossible at
    this confidence. ``gdp`` is an estimate.
    """

    canaries: int
    confidence: float
    one_run: float
    f_dp: float
    refuted: bool
    gdp: float
    auroc: float


def leakage(
    inside: Floats,
    outside: Floats,
    *,
    delta: float,
    claimed: Sequence[tuple[float, float]],
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Leakage:
    """Return every bound from the scores of canaries that were in (n,) and out (m,).

    ``claimed`` are points (epsilon, delta) that the mechanism claims to satisfy, all at once.
    One half of the canaries chooses the threshold, the other is counted, so that the strict
    bounds need no correction over thresholds.
    """
    level = 1 - confidence
    guesses = split_guesses(inside, outside, level, delta, rng)
    return Leakage(
        canaries=len(inside) + len(outside),
        confidence=confidence,
        one_run=one_run_epsilon(guesses, level, delta),
        f_dp=f_dp_epsilon(guesses, level, delta),
        refuted=refutes(guesses, level, curve_inverse(claimed)),
        gdp=gdp_epsilon(inside, outside, level, delta),
        auroc=auroc(inside, outside),
    )


def split_guesses(
    inside: Floats, outside: Floats, level: float, delta: float, rng: np.random.Generator
) -> Guesses:
    """Return the guesses on one half of the canaries at the threshold that is best on the other."""
    scores = np.concatenate([inside, outside])
    labels = np.arange(len(scores)) < len(inside)
    order = rng.permutation(len(scores))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    best, threshold = -1.0, math.inf
    candidates = np.unique(scores[first][labels[first]])
    if len(candidates) > 200:  # as good, and cheap
        candidates = np.quantile(candidates, np.linspace(0, 1, 200))
    for candidate in candidates:
        found = guesses_at(scores[first], labels[first], float(candidate))
        value = f_dp_epsilon(found, level, delta)
        value = value or found.right / found.made - 1  # before any bound is positive
        if value > best:
            best, threshold = value, float(candidate)
    return guesses_at(scores[second], labels[second], threshold)


def guesses_at(scores: Floats, labels: NDArray[np.bool_], threshold: float) -> Guesses:
    """Return the guesses 'in' for every score at or above the threshold."""
    called = scores >= threshold
    return Guesses(canaries=len(scores), made=int(called.sum()), right=int((called & labels).sum()))


def one_run_p(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Return the p-value of the claim (epsilon, delta) under these guesses.

    Steinke et al. 2023, Theorem 5.2: P(right >= v) <= beta + 2 m delta max_i (1/i)
    [P(Bin(r, p) >= v - i) - beta], with p = e^epsilon / (1 + e^epsilon).
    """
    rate, v = float(expit(epsilon)), guesses.right
    tail = float(binom.sf(v - 1, guesses.made, rate))
    if delta == 0 or v == 0:
        return min(1.0, tail)
    i = np.arange(1, v + 1)
    gain = (binom.sf(v - i - 1, guesses.made, rate) - tail) / i
    return min(1.0, tail + 2 * guesses.canaries * delta * max(0.0, float(gain.max())))


def one_run_epsilon(guesses: Guesses, level: float, delta: float) -> float:
    """Return the largest epsilon whose claim at this delta is refuted at ``level``; 0 if none."""
    return _largest(lambda epsilon: one_run_p(guesses, epsilon, delta) <= level)


def refutes(guesses: Guesses, level: float, inverse: InverseBlowUp) -> bool:
    """Return whether these guesses are impossible at ``level`` for this trade-off curve.

    Mahloujifar et al. 2024, Algorithm 3 with binary guesses: r and h are followed down from the
    observed count, and the curve is refuted when they need more mass than there is.
    """
    m, made, right = guesses.canaries, guesses.made, guesses.right
    if made == 0:
        return False
    r, h = level * right / m, level * (made - right) / m
    for i in range(right - 1, -1, -1):
        higher = max(h, inverse(min(1.0, r)))
        if higher == h:
            break  # nothing can change any more
        r, h = min(1.0, r + i / (made - i) * (higher - h)), higher
    return r + h > made / m


def f_dp_epsilon(guesses: Guesses, level: float, delta: float) -> float:
    """Return the largest epsilon whose Gaussian trade-off curve is refuted at ``level``."""

    def impossible(epsilon: float) -> bool:
        mu = mu_of(epsilon, delta)
        return refutes(guesses, level, lambda y: float(ndtr(ndtri(y) - mu)))

    return _largest(impossible)


def curve_inverse(points: Sequence[tuple[float, float]]) -> InverseBlowUp:
    """Return the inverse blow-up of the curve that is (epsilon, delta)-private at every point.

    From y <= e^epsilon x + delta and 1 - y >= e^-epsilon (1 - delta - x) (Dong, Roth & Su 2022,
    Proposition 2.12): the largest of these lower bounds on x.
    """
    factors = np.array([math.exp(epsilon) for epsilon, _ in points])
    deltas = np.array([delta for _, delta in points])

    def inverse(y: float) -> float:
        below = np.maximum((y - deltas) / factors, 1 - deltas - factors * (1 - y))
        return max(0.0, float(below.max()))

    return inverse


def gdp_epsilon(inside: Floats, outside: Floats, level: float, delta: float) -> float:
    """Return the epsilon of the largest mu that Clopper-Pearson bounds leave, an estimate.

    mu >= PhiInv(1 - FPR) - PhiInv(FNR) with upper bounds of both rates, Bonferroni over the
    thresholds of the hull (Nasr et al. 2023; Dong, Roth & Su 2022, equation 6).
    """
    thresholds = hull_thresholds(inside, outside)
    misses = np.searchsorted(np.sort(inside), thresholds)
    alarms = len(outside) - np.searchsorted(np.sort(outside), thresholds)
    share = level / (2 * len(thresholds))
    fnr, fpr = _upper(misses, len(inside), share), _upper(alarms, len(outside), share)
    mu = float(np.max(-ndtri(fpr) - ndtri(fnr), initial=0.0))
    return _largest(lambda epsilon: gaussian_delta(epsilon, mu) > delta) if mu > 0 else 0.0


def hull_thresholds(inside: Floats, outside: Floats) -> Floats:
    """Return the thresholds at the corners of the ROC curve's upper convex hull, ascending."""
    thresholds = np.append(np.union1d(inside, outside), math.inf)
    misses = np.searchsorted(np.sort(inside), thresholds)
    quiet = np.searchsorted(np.sort(outside), thresholds)
    points = np.stack([misses, quiet], axis=1)
    keep = np.arange(len(points))
    while True:
        step = np.diff(points[keep], axis=0)
        inner = step[:-1, 1] * step[1:, 0] <= step[1:, 1] * step[:-1, 0]
        if not inner.any():
            return thresholds[keep]
        keep = keep[np.r_[True, ~inner, True]]


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Return delta(epsilon) of mu-GDP (Dong, Roth & Su 2022, Corollary 2.13)."""
    first, second = -epsilon / mu + mu / 2, -epsilon / mu - mu / 2
    return float(ndtr(first) - math.exp(min(700.0, epsilon + float(log_ndtr(second)))))


def mu_of(epsilon: float, delta: float) -> float:
    """Return the mu whose curve passes through (epsilon, delta)."""
    return float(
        brentq(lambda mu: gaussian_delta(epsilon, mu) - delta, 1e-9, 50.0, xtol=1e-10)  # pyright: ignore[reportArgumentType]
    )


def auroc(inside: Floats, outside: Floats) -> float:
    """Return P(score in > score out) + P(equal) / 2 (Mann-Whitney)."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    upto = np.searchsorted(ordered, inside, side="right")
    return float((below + upto).mean() / (2 * len(ordered)))


def tpr_at(inside: Floats, outside: Floats, false_positive_rate: float) -> float:
    """Return the share of 'in' scores above the threshold that so many 'out' scores pass.

    Never more than that share of the 'out' scores passes: with few of them, none.
    """
    allowed = int(false_positive_rate * len(outside))
    threshold = np.sort(outside)[::-1][allowed] if allowed < len(outside) else -math.inf
    return float((inside > threshold).mean())


def _largest(refuted: Callable[[float], bool]) -> float:
    """Return the largest refuted epsilon, to 1e-6, when refutation is monotone; 0 if none."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
        if high > _MOST:
            return low
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _upper(count: NDArray[np.intp], total: int, level: float) -> Floats:
    """Return Clopper-Pearson upper bounds of a rate."""
    bound = beta.ppf(1 - level, np.minimum(count, total - 1) + 1, np.maximum(1, total - count))
    return np.where(count < total, bound, 1.0)
