"""One cell of a table: a number, a text, or missing; nothing is guessed and nothing filled in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = Sequence[Any] | NDArray[Any]
"""(n,) cells: texts of a file, or typed values with None where one is missing."""
LARGEST = 3.4e38
"""Beyond it a number would be infinite as float32."""
_WHOLE = re.compile(r"([+-]?\d+)\.0*")


def plain(text: str) -> str:
    """Return a cell's text without spaces around it, and a whole number without its ".0"."""
    text = text.strip()
    found = _WHOLE.fullmatch(text)
    return found.group(1) if found else text


def as_text(cell: object) -> str | None:
    """Return what a cell says as text, None where it says nothing; true is "1", 1.0 is "1"."""
    if isinstance(cell, str):
        return plain(cell) or None
    if cell is None:
        return None
    if isinstance(cell, (bool, np.bool_)):
        return "1" if cell else "0"
    if isinstance(cell, (float, np.floating)):
        return None if math.isnan(cell) else plain(repr(float(cell)))
    return plain(str(cell)) or None


def as_number(text: str) -> float | None:
    """Return the finite number that a text is, None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < LARGEST and "_" not in text else None


@dataclass(frozen=True, slots=True)
class Marks:
    """The site's own marks of a missing value, as texts; an empty cell always is one."""

    texts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, marks: Iterable[str]) -> Marks:
        """Return the marks; a cell that says the same number as one is missing, too."""
        return cls(frozenset(plain(mark) for mark in marks))

    def text(self, cell: object) -> str | None:
        """Return a cell's text, None where it is missing."""
        found = as_text(cell)
        return None if found is None or found in self.texts else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A column of numbers: ``values`` (n,) float32, NaN where missing; ``bad`` (n,) no number."""

    values: NDArray[np.float32]
    bad: NDArray[np.bool_]


def numbers(column: Column, marks: Marks, *, zero_is_missing: bool = False) -> Numbers:
    """Return a column as numbers; what is neither a finite number nor missing is ``bad``."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        values, bad = _typed(column, marks)
    else:
        values, bad = _parsed(column, marks)
    if zero_is_missing:
        values[values == 0] = np.nan
    return Numbers(values=values.astype(np.float32), bad=bad)


def _typed(column: NDArray[Any], marks: Marks) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = column.astype(np.float64)
    known = [number for mark in marks.texts if (number := as_number(mark)) is not None]
    if known:
        values[np.isin(values, known)] = np.nan
    bad = np.abs(values) >= LARGEST
    values[bad] = 0.0
    return values, bad


def _all_numbers(column: Column, marks: Marks) -> NDArray[np.float64] | None:
    """Return texts that all are numbers, none of them a mark, in one step; None otherwise."""
    try:
        if "_" in "".join(column):
            return None
        values = np.array([float(cell) for cell in column], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    known = [number for mark in marks.texts if (number := as_number(mark)) is not None]
    plain_numbers = (np.abs(values) < LARGEST) & ~np.isin(values, known)
    return values if plain_numbers.all() else None


def _parsed(column: Column, marks: Marks) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if (whole := _all_numbers(column, marks)) is not None:
        return whole, np.zeros(len(column), dtype=np.bool_)
    values = np.empty(len(column), dtype=np.float64)
    bad = np.zeros(len(column), dtype=np.bool_)
    for row, cell in enumerate(column):
        value, wrong = _one(cell, marks)
        values[row], bad[row] = value, wrong
    return values, bad


def _one(cell: object, marks: Marks) -> tuple[float, bool]:
    """Return a cell's number (NaN where missing) and whether it is neither."""
    if isinstance(cell, (str, int, float, Decimal, np.generic)) or cell is None:
        text = marks.text(cell)
        if text is None:
            return math.nan, False
        value = as_number(text)
        return (math.nan, True) if value is None else (value, False)
    return math.nan, True
