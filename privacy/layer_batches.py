"""How records and their units pass through the model: physical micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import InvalidInput

Rows = NDArray[np.intp]
WASTE = 1.5  # how much larger than the smallest unit of a batch its largest may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whole units of one size, or one unit that is larger than a chunk.

    ``rows`` picks the records, ``per_unit`` of them for each unit in ``units`` (numbers); short
    units are filled up with records of weight 0. ``weights`` (rows,) average over a unit's own
    records; None: each record is a unit.
    """

    rows: slice | Rows
    weights: NDArray[np.float64] | None
    units: slice | Rows
    per_unit: int

    def of(self, values: Tensor) -> Tensor:
        """Return the batch's rows of ``values`` (n, ...)."""
        if isinstance(self.rows, slice):
            return values[self.rows]
        return values[torch.from_numpy(self.rows).to(values.device)]

    def split(self, chunk: int) -> Iterator[Batch]:
        """Yield this one unit's records in parts of at most ``chunk``."""
        if isinstance(self.rows, slice) or self.weights is None:
            raise TypeError("only the records of a unit can be split")
        for start in range(0, len(self.rows), chunk):
            rows, weights = self.rows[start : start + chunk], self.weights[start : start + chunk]
            yield Batch(rows=rows, weights=weights, units=self.units, per_unit=len(rows))


def batches(count: int, units: Rows | None, chunk: int) -> Iterator[Batch]:
    """Yield batches of at most ``chunk`` rows that cover ``count`` records; larger units alone.

    ``units`` (count,) numbers each record's unit, ascending from 0; None: each is one. Raises
    ``InvalidInput`` for other numberings.
    """
    if units is None:
        for start in range(0, count, chunk):
            span = slice(start, min(start + chunk, count))
            yield Batch(rows=span, weights=None, units=span, per_unit=1)
        return
    sizes = unit_sizes(count, units)
    if sizes.max(initial=1) == 1:
        yield from batches(count, None, chunk)
        return
    firsts = np.cumsum(sizes) - sizes
    order = np.argsort(sizes, kind="stable")
    for chosen in _alike(order, sizes, chunk):
        yield _padded(chosen, firsts[chosen], sizes[chosen])


def unit_sizes(count: int, units: Rows) -> Rows:
    """Return how many records each unit has: (units,)."""
    steps = np.diff(units, prepend=units[:1])
    if len(units) != count or not np.isin(steps, (0, 1)).all() or units[:1].any():
        raise InvalidInput(
            "the units of a batch are not numbered 0, 1, 2, ... in ascending order",
            why="each record's unit must be known, and its records must follow each other",
            cure="take rows and owners from Units.rows_of",
        )
    return np.bincount(units)


def _alike(order: Rows, sizes: Rows, chunk: int) -> Iterator[Rows]:
    """Cut units, sorted by size, into runs of about one size and at most ``chunk`` rows."""
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            largest = int(sizes[order[stop]])
            fits = largest * (stop + 1 - start) <= chunk
            if fits and largest <= WASTE * sizes[order[start]]:
                continue
        yield order[start:stop]
        start = stop


def _padded(units: Rows, firsts: Rows, sizes: Rows) -> Batch:
    """Return units as equally many rows each: a short one repeats its first record, weight 0."""
    width = int(sizes.max())
    column = np.arange(width)
    real = column[None, :] < sizes[:, None]  # (units, width)
    rows = firsts[:, None] + np.where(real, column[None, :], 0)
    weights = np.where(real, 1.0 / sizes[:, None], 0.0)
    return Batch(rows=rows.reshape(-1), weights=weights.reshape(-1), units=units, per_unit=width)
