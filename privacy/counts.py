"""Evaluation leaks too: right answers and records as noised counts, with their own reserve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec
from .derive import COUNTS
from .noise import NoiseStream
from .units import Units


def noised_counts(
    spec: MechanismSpec, right: NDArray[np.bool_], units: Units, stream: NoiseStream
) -> dict[str, float]:
    """Return the noised number of right answers and of units of a test part.

    ``right`` (m,) says which records were answered rightly. A unit contributes (its share of
    right answers, 1), L2 norm at most sqrt(2) = ``spec.clip_norm``; the Gaussian mechanism adds
    noise of ``spec.noise_std`` to both sums (Dwork & Roth 2014, Appendix A).
    """
    rows, owners = units.rows_of(np.arange(len(units)))
    places = np.arange(len(rows)) if owners is None else owners
    sizes = np.bincount(places, minlength=len(units))
    shares = np.bincount(places, weights=right[rows], minlength=len(units)) / np.maximum(sizes, 1)
    exact = np.array([shares.sum(), float(len(units))])
    noisy = exact + stream.normal(2) * spec.noise_std
    return dict(zip(COUNTS, noisy.tolist(), strict=True))
