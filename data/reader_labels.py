"""Labels of a file as class indices: the plan's class names, or 0 to k-1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import InvalidInput, Problem
from .site_data import Labels


def class_indices(
    values: Sequence[str], classes: Sequence[str], path: Path, *, first_row: int
) -> Labels:
    """Return (n,) class indices of labels given as texts; one reading holds for the whole file.

    If every label is a class name they are names; else all must be whole numbers from 0 to
    k-1. Raises ``InvalidInput`` with the numbers of the first rows that are neither.
    """
    names = {name: index for index, name in enumerate(classes)}
    indices = {str(index): index for index in range(len(classes))}
    as_names = [row for row, value in enumerate(values) if value not in names]
    if not as_names:
        return np.array([names[value] for value in values], dtype=np.int64)
    plain = [value.removesuffix(".0") for value in values]
    as_indices = [row for row, value in enumerate(plain) if value not in indices]
    if not as_indices:
        return np.array([indices[value] for value in plain], dtype=np.int64)
    wrong = min(as_names, as_indices, key=len)
    raise InvalidInput(
        str(path.name),
        [
            Problem(
                where=rows_in_words(wrong, first_row),
                what="the label is not a class of the plan",
                why=f"labels are the plan's {len(classes)} class names, or 0 to {len(classes) - 1}",
                cure="correct those labels, or leave the rows out",
            )
        ],
    )


def rows_in_words(rows: Sequence[int], first_row: int, most: int = 8) -> str:
    """Return 'row 4', or 'rows 4, 7, 9 and 12 more'; ``first_row`` is the number of row 0."""
    shown = ", ".join(str(row + first_row) for row in rows[:most])
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' if len(rows) != 1 else ''} {shown}{more}"
