"""Threshold and temperature of a classifier from counts of its scores, and the layer for them.

Sites count their scores in fixed public bins; what is fitted sees only the sum of those counts,
which may be noised and so negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.floating[Any]]
LIMIT = 12.0  # scores are log odds, clipped to this; e^12 is 160,000 to 1
COLDEST, HOTTEST = 0.05, 20.0
_GRID = 401  # temperatures that are tried, rising by 1.5 percent each
_SURE = 3.0  # deviations of its own noise by which a class must be seen
_DOUBT = 2.0  # deviations of noise that a gain must exceed to count


class Calibrate(nn.Module):
    """The last layer: (outputs + offset) / temperature, the identity until both are fitted."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(classes))
        self.register_buffer("temperature", torch.ones(1))

    def set(self, *, offset: float = 0.0, temperature: float = 1.0) -> None:
        """Take what was fitted: ``offset`` is added to the last class's logit alone."""
        self.get_buffer("offset").zero_()[-1] = offset
        self.get_buffer("temperature").fill_(temperature)

    def forward(self, outputs: Tensor) -> Tensor:
        """Map (batch, classes) logits to (batch, classes) logits."""
        return (outputs + self.get_buffer("offset")) / self.get_buffer("temperature")


def score_histogram(
    outputs: Floats, labels: NDArray[np.integer[Any]], bins: int, *, weights: Floats | None = None
) -> NDArray[np.float64]:
    """Return how many records fall into each bin of the score: (2, bins) counts.

    Of two classes the score of (n, 2) logits is the log odds of class 1, and row c counts the
    records of class c. Of more it is the log odds of the likeliest class; row 0 counts wrong
    answers, row 1 right ones. Scores are clipped to ``LIMIT``, a score that is no number counts
    as 0. A record adds ``weights`` (n,) to one cell, 1 by default.
    """
    scores, rows = _scores(np.asarray(outputs, dtype=np.float64), labels)
    within = np.clip(scores, -LIMIT, LIMIT)  # before the cast: 1e20 is no int64
    places = np.minimum(((within + LIMIT) / (2 * LIMIT) * bins).astype(np.int64), bins - 1)
    counts = np.zeros((2, bins), dtype=np.float64)
    np.add.at(counts, (rows, places), 1.0 if weights is None else weights)
    return counts


def fit_threshold(
    counts: Floats, criterion: str, sensitivity: float = 0.95, *, noise_std: float = 0.0
) -> float:
    """Return what to add to class 1's log odds so that 0 is the best threshold of (2, bins) counts.

    ``criterion``: "accuracy" (most right answers), "youden" (sensitivity plus specificity),
    "sensitivity" (the highest threshold that finds this share of class 1) or "none". Where
    several thresholds are equally good the middle of them is taken. 0 when a class is not seen:
    no record of it, or fewer than its noise (``noise_std`` per cell) could feign.
    """
    if criterion == "none" or not _seen(counts, noise_std).all():
        return 0.0
    below = _cumulative(counts)  # (2, bins + 1) records below each edge
    totals = below[:, -1:]
    edges = np.linspace(-LIMIT, LIMIT, below.shape[1])
    misses, found = below / totals, 1 - below / totals
    if criterion == "sensitivity":
        enough = np.flatnonzero(found[1] >= sensitivity - 1e-12)
        return float(-edges[enough[-1]])
    good = found[1] + misses[0] if criterion == "youden" else below[0] + totals[1] - below[1]
    best = np.flatnonzero(good >= good.max() - 1e-9 * max(1.0, float(good.max())))
    run = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    longest = max(run, key=len)
    return float(-(edges[longest[0]] + edges[longest[-1]]) / 2)


def fit_temperature(
    counts: Floats, *, classes: int = 2, offset: float = 0.0, noise_std: float = 0.0
) -> float:
    """Return the temperature that makes the scores of (2, bins) counts most likely.

    Guo et al., ICML 2017, section 4.2, on counts instead of records; ``offset`` as fitted before.
    One record's weight holds it near 1, so that classes without overlap do not drive it to 0, and
    under noise it leaves 1 only as far as the counts say more than two deviations of their noise.
    For more than two classes only the likeliest one's chance is known here; the others are taken
    to share the rest as ``_confidence`` says. 1 when no record is seen.
    """
    if not _seen(counts.sum(axis=0, keepdims=True), noise_std * np.sqrt(2)).all():
        return 1.0
    # noise of mean 0 leaves a sum over counts right on average, as long as none is cut off
    counted = np.asarray(counts, dtype=np.float64) if noise_std else _rising(counts)
    bins = counted.shape[1]
    scores = (np.arange(bins) + 0.5) * (2 * LIMIT / bins) - LIMIT + offset
    as_it_is = _surprises(scores, 1.0, classes)
    grid = np.geomspace(COLDEST, HOTTEST, _GRID)
    costs: list[float] = []
    for each in grid:
        gained = _surprises(scores, each, classes) - as_it_is  # (2, bins), nats of one record
        feigned = _DOUBT * noise_std * float(np.sqrt(np.square(gained).sum()))
        costs.append(float((counted * gained).sum()) + feigned + float(np.log(each)) ** 2)
    return float(grid[int(np.argmin(costs))])


def _scores(
    outputs: NDArray[np.float64], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each record's log odds (n,) and row (n,)."""
    clean = np.nan_to_num(outputs, posinf=1e30, neginf=-1e30)
    clean[np.isnan(outputs).any(axis=1)] = 0.0  # of what is left of it no score is a score
    if clean.shape[1] == 2:
        return clean[:, 1] - clean[:, 0], labels.astype(np.int64)
    answers = clean.argmax(axis=1)
    top = clean.max(axis=1)
    others = clean - top[:, None]
    others[np.arange(len(clean)), answers] = -np.inf
    rest = np.log(np.maximum(np.exp(others).sum(axis=1), 1e-300))
    return -rest, (answers == labels).astype(np.int64)


def _seen(counts: Floats, noise_std: float) -> NDArray[np.bool_]:
    """Return whether each row of (rows, bins) counts holds more than its noise could feign."""
    noise = noise_std * np.sqrt(counts.shape[1])
    return counts.sum(axis=1) > max(_SURE * noise, 1e-9)


def _rising(counts: Floats) -> NDArray[np.float64]:
    """Return the nearest (rows, bins) counts none of which is negative."""
    return np.diff(_cumulative(counts), axis=1)


def _cumulative(counts: Floats) -> NDArray[np.float64]:
    """Return the records below each bin edge, (rows, bins + 1), never falling.

    Noise is taken out of the sums (isotonic least squares), not out of the bins: cutting each
    negative bin off would add records on average.
    """
    from sklearn.isotonic import isotonic_regression

    rows: list[NDArray[np.float64]] = []
    for row in np.asarray(counts, dtype=np.float64):
        total = max(float(row.sum()), 0.0)
        inner = isotonic_regression(np.cumsum(row)[:-1], y_min=0.0, y_max=total)
        rows.append(np.concatenate([[0.0], inner, [total]]))
    return np.stack(rows)


def _surprises(scores: Floats, temperature: float, classes: int) -> Floats:
    """Return (2, bins): the nats that a record of each row and score costs at a temperature."""
    odds = _log_odds(scores, temperature, classes)
    return np.stack([np.logaddexp(0.0, odds), np.logaddexp(0.0, -odds)])


def _log_odds(scores: Floats, temperature: float, classes: int) -> Floats:
    """Return the log odds (bins,) that scores (bins,) have at another temperature.

    Exact for two classes. For k classes and a likeliest chance p the rest 1 - p is shared by
    between max(1, (1 - p) / p) classes, for none is likelier than p, and k - 1: their geometric
    mean m is taken, and m equal shares give log odds s / T - (1 - 1 / T) log m.
    """
    if classes == 2:
        return scores / temperature
    fewest = np.maximum(0.0, -scores)  # log of (1 - p) / p
    sharers = (np.minimum(fewest, np.log(classes - 1)) + np.log(classes - 1)) / 2
    return scores / temperature - (1 - 1 / temperature) * sharers
