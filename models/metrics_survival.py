"""How well risks rank survival times: Harrell's concordance index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .task_base import Floats, Rights

_CELLS = 1 << 22  # pairs that are compared at once


def c_index(risks: Floats, times: Floats, events: Rights) -> float:
    """Return the share of comparable pairs in which the higher risk has the earlier event.

    ``risks``, ``times`` and ``events`` (n,). A pair compares where the earlier time is an event,
    or where both times are equal and exactly one is an event; equal risks count half. NaN where
    no pair compares. Harrell et al., JAMA 1982.
    """
    order = np.argsort(times, kind="stable")
    risk, time = np.asarray(risks)[order], np.asarray(times)[order]
    event = np.asarray(events, dtype=np.bool_)[order]
    firsts = np.flatnonzero(event)
    agreed, pairs = 0.0, 0
    rows = max(1, _CELLS // max(1, len(time)))
    for start in range(0, len(firsts), rows):
        chunk = firsts[start : start + rows]
        later = (time > time[chunk, None]) | ((time == time[chunk, None]) & ~event)
        pairs += int(later.sum())
        agreed += _agreeing(risk[chunk, None], risk, later)
    return agreed / pairs if pairs else float("nan")


def _agreeing(first: Floats, other: Floats, later: NDArray[np.bool_]) -> float:
    higher = float(((first > other) & later).sum())
    return higher + 0.5 * float(((first == other) & later).sum())
