"""How sure a difference between two models on the same records is: 95 % intervals for pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.metrics import softmax

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Z = 1.959963984540054  # the normal distribution's 97.5 % point
SEED = 20_260_101
MOST_RESAMPLES, LEAST_RESAMPLES = 2000, 400
WORK = 4e7  # resamples x records x classes: about two CPU seconds per model
METHODS = {
    "accuracy": "95 % interval of a paired difference of proportions: Newcombe, Statistics in "
    "Medicine 17 (1998) 2635-2650, method 10",
    "auc": "95 % percentile interval of the paired difference over bootstrap resamples within each "
    "class, seed fixed (Efron & Tibshirani 1993); two classes: class 1, more: mean over the "
    "classes, each against the rest",
    "assumption": "records are independent: with several records of one person in the test part "
    "both intervals are too narrow",
}
"""Which interval parity.json quotes, by figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A gain over another model on the same records, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the interval."""
        return (self.low, self.high)


def accuracy_difference(right: Bools, other: Bools) -> Difference:
    """Return the share of (n,) right answers minus the other model's on the same records.

    Newcombe 1998, method 10: Wilson intervals of both shares, squared and added, with their
    correlation phi (continuity-corrected). Raises ``ValueError`` for no records.
    """
    n = len(right)
    if n == 0 or len(other) != n:
        raise ValueError("two models answer the same records, at least one")
    both, first = int((right & other).sum()), int((right & ~other).sum())
    second = int((~right & other).sum())
    neither = n - both - first - second
    p, q = (both + first) / n, (both + second) / n
    (p_low, p_high), (q_low, q_high) = _wilson(p, n), _wilson(q, n)
    phi = _phi(both, first, second, neither)
    value = (first - second) / n
    below = _squared(p - p_low, q_high - q, phi)
    above = _squared(q - q_low, p_high - p, phi)
    return Difference(
        value=value, low=max(-1.0, value - below**0.5), high=min(1.0, value + above**0.5)
    )


def auc_scores(outputs: Floats) -> Floats:
    """Return (n, k) scores of (n, classes) logits: log odds of class 1, or each class's chance."""
    if outputs.shape[1] == 2:
        return (outputs[:, 1].astype(np.float64) - outputs[:, 0])[:, None]
    return softmax(outputs)


def has_auc(labels: NDArray[np.integer[Any]], classes: int) -> bool:
    """Return whether AUC is defined: two classes or more, and each occurs among (n,) labels."""
    return classes > 1 and len(np.unique(labels)) == classes


def resampled_auc(outputs: Floats, labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the AUC of (n, classes) logits in each bootstrap resample of the records.

    The resamples depend on the labels alone, so that two models' arrays are paired. Each class
    keeps its number of records. The AUC is the mean over the score columns of ``auc_scores``.
    """
    scores = auc_scores(outputs)
    truth = _truth(labels, scores.shape[1])
    count = int(np.clip(WORK / max(scores.size, 1), LEAST_RESAMPLES, MOST_RESAMPLES))
    columns = [_Column(scores[:, k], truth[:, k]) for k in range(scores.shape[1])]
    rng = np.random.default_rng(SEED)
    parts: list[NDArray[np.float64]] = []
    step = max(1, 1_000_000 // len(labels))  # weights of so many resamples fit into memory
    for start in range(0, count, step):
        weights = _weights(labels, min(step, count - start), rng)
        parts.append(np.mean([column.auc(weights) for column in columns], axis=0))
    return np.concatenate(parts)


def auc_difference(
    value: float, resampled: NDArray[np.float64], other: NDArray[np.float64]
) -> Difference:
    """Return ``value``, a difference of AUC, with the interval of two models' paired resamples."""
    low, high = np.percentile(resampled - other, [2.5, 97.5])
    return Difference(value=value, low=float(low), high=float(high))


class _Column:
    """One score and its truth in the score's order, ties together."""

    def __init__(self, scores: Floats, truth: Bools) -> None:
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self.positive = truth[self.order]

    def auc(self, weights: Floats) -> NDArray[np.float64]:
        """Return the AUC under each row of (resamples, n) weights; ties count half."""
        ordered = weights[:, self.order]
        positive = np.add.reduceat(ordered * self.positive, self.starts, axis=1)
        negative = np.add.reduceat(ordered * ~self.positive, self.starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        return (positive * below).sum(axis=1) / pairs


def _weights(
    labels: NDArray[np.integer[Any]], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return (count, n): how often each record is drawn, within its class."""
    weights = np.zeros((count, len(labels)))
    for each in np.unique(labels):
        places = np.flatnonzero(labels == each)
        shares = np.full(len(places), 1 / len(places))
        weights[:, places] = rng.multinomial(len(places), shares, size=count)
    return weights


def _truth(labels: NDArray[np.integer[Any]], columns: int) -> Bools:
    if columns == 1:
        return (labels == 1)[:, None]
    return labels[:, None] == np.arange(columns)


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's score interval of a share of n (JASA 22, 1927)."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # rounding must not put an end beyond the share itself
    return min(share, max(0.0, float(middle - half))), max(share, min(1.0, float(middle + half)))


def _phi(both: int, first: int, second: int, neither: int) -> float:
    """Return the correlation of two models' right answers, as method 10 corrects it."""
    n = both + first + second + neither
    margins = float((both + first) * (second + neither)) * float(
        (both + second) * (first + neither)
    )
    if margins == 0:
        return 0.0
    excess = float(both * neither - first * second)
    if excess > 0:
        excess = max(excess - n / 2, 0.0)
    return excess / margins**0.5


def _squared(one: float, two: float, phi: float) -> float:
    return max(0.0, one**2 - 2 * phi * one * two + two**2)
