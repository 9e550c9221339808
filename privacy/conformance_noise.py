"""Tests of one site's noise: its size over all, by step and by tensor, its law, and its gaps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, chi2, norm

from .conformance import Finding, measured, unexercised
from .conformance_records import EDGES, DrawnStep
from .noise import Floats

NOISE, NOISE_STEPS = "noise size", "noise size by step"
NOISE_TENSORS, NOISE_LAW = "noise size by tensor", "noise distribution"
NOISE_GAPS = "coordinates without noise"

_TAILS = (*(2 * float(norm.sf(edge)) for edge in (0.0, *EDGES)), 0.0)
_CHANCES = tuple(above - beyond for above, beyond in pairwise(_TAILS))
"""Probability of each bin of |z|."""

_OLD = "the evidence is of a version that did not note it"


def noise_findings(name: str, steps: Sequence[tuple[float, DrawnStep]]) -> list[Finding]:
    """Return the findings on the noise of a site's steps, each with its noise multiplier.

    sum z^2 over n coordinates is chi-squared with n degrees of freedom, whichever coordinates.
    """
    drawn = [step for _, step in steps]
    size, squares = sum(step.size for step in drawn), sum(step.squares for step in drawn)
    if not size:
        return [unexercised(NOISE, name, "no step was taken")]
    text = f"std {np.sqrt(squares / size):.4f} of the plan's, {size:,} coordinates"
    by_step = _chi2_p([step.squares for step in drawn], [step.size for step in drawn])
    found = [
        measured(NOISE, name, text, _chi2_p([squares], [size])),
        measured(NOISE_STEPS, name, f"{len(drawn)} steps", by_step),
    ]
    return [*found, _tensors(name, drawn), _law(name, drawn), _gaps(name, steps)]


def _chi2_p(squares: ArrayLike, size: ArrayLike) -> list[float]:
    below, above = np.asarray(chi2.cdf(squares, size)), np.asarray(chi2.sf(squares, size))
    both: Floats = 2 * np.minimum(below, above)
    return [float(p) for p in both.ravel()]


def _tensors(name: str, steps: Sequence[DrawnStep]) -> Finding:
    """Each tensor's noise over all steps, and at each step."""
    tables: dict[tuple[int, ...], list[tuple[float, ...]]] = {}
    for step in steps:
        if step.tensor_sizes:
            tables.setdefault(step.tensor_sizes, []).append(step.tensor_squares)
    if not tables:
        return unexercised(NOISE_TENSORS, name, _OLD)
    ps: list[float] = []
    for sizes, rows in tables.items():
        table = np.array(rows)  # (steps, tensors)
        each = np.array(sizes)
        ps += _chi2_p(table.sum(axis=0), each * len(table))
        ps += _chi2_p(table, np.broadcast_to(each, table.shape))
    tensors = max(len(sizes) for sizes in tables)
    return measured(NOISE_TENSORS, name, f"{tensors} tensors over all steps and at each", ps)


def _law(name: str, steps: Sequence[DrawnStep]) -> Finding:
    """The count of |z| in a bin, and of z < 0, is binomial over all coordinates."""
    noted = [step for step in steps if len(step.bins) == len(_CHANCES)]
    if not noted:
        return unexercised(NOISE_LAW, name, _OLD)
    size = sum(step.size for step in noted)
    counts: NDArray[np.int64] = np.sum([step.bins for step in noted], axis=0)
    counts = np.append(counts, sum(step.negative for step in noted))
    chances = np.array([*_CHANCES, 0.5])
    below, above = binom.cdf(counts, size, chances), binom.sf(counts - 1, size, chances)
    ps = 2 * np.minimum(np.asarray(below), np.asarray(above))
    text = f"{len(_CHANCES)} bins of |z| and its sign, {size:,} coordinates"
    return measured(NOISE_LAW, name, text, [float(p) for p in ps])


def _gaps(name: str, steps: Sequence[tuple[float, DrawnStep]]) -> Finding:
    """A continuous noise is never exactly 0, but z is a difference of rounded sums.

    noisy = clean for noise below half a unit in the last place of the clean sum, which is at
    most units x C: a chance below 2^-52 units / noise multiplier, and 2^-52 more for noise that
    is itself drawn as 0. The number of zeros is then at most binomial, and p an upper bound.
    """
    noted = [(noise, step) for noise, step in steps if step.bins]
    if not noted:
        return unexercised(NOISE_GAPS, name, _OLD)
    chance = max(2.0**-52 * (1 + step.units / noise) for noise, step in noted)
    zeros, size = sum(step.zeros for _, step in noted), sum(step.size for _, step in noted)
    p = float(binom.sf(zeros - 1, size, min(1.0, chance)))
    return measured(NOISE_GAPS, name, f"{zeros:,} of {size:,} coordinates", [p])
