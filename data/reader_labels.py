"""Labels of a file as class indices: the plan's class names, or 0 to k-1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .cells import plain
from .problems import Faults
from .site_data import Labels


class ClassLabels:
    """Labels as they come, each distinct text once; what they mean is decided at the end.

    If every label is a class name they are names; else all must be whole numbers from 0 to
    k-1. One reading holds for the whole file. ``renamed`` is the site's own [data.labels].
    """

    def __init__(self, classes: Sequence[str], renamed: Mapping[str, str]) -> None:
        self._classes = classes
        self._renamed = {plain(old): new for old, new in renamed.items()}
        self._known: dict[str, int] = {}
        self._codes: list[NDArray[np.int64]] = []
        self._rows: list[NDArray[np.int64]] = []

    def add(self, texts: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Add labels as texts, with their row numbers."""
        renamed, known = self._renamed, self._known
        codes = [known.setdefault(renamed.get(text, text), len(known)) for text in texts]
        self._codes.append(np.array(codes, dtype=np.int64))
        self._rows.append(rows)

    def finish(self, faults: Faults, column: str = "") -> Labels:
        """Return (n,) class indices; rows that have none are added to ``faults``."""
        empty = np.empty(0, dtype=np.int64)
        codes = np.concatenate([empty, *self._codes])
        if not len(codes):
            return empty
        names = {name: index for index, name in enumerate(self._classes)}
        # a name that is written "1.0" in the plan is the text "1" here
        names |= {plain(name): index for name, index in names.items() if plain(name) not in names}
        indices = {str(index): index for index in range(len(self._classes))}
        readings = [
            np.array([reading.get(text, -1) for text in self._known], dtype=np.int64)[codes]
            for reading in (names, indices)
        ]
        best = min(readings, key=lambda reading: int((reading < 0).sum()))
        rows = np.concatenate(self._rows)
        faults.add(column, "class", rows[best < 0].tolist())
        return best


def class_indices(
    values: Sequence[str],
    classes: Sequence[str],
    faults: Faults,
    *,
    renamed: Mapping[str, str] | None = None,
    first_row: int = 0,
) -> Labels:
    """Return (n,) class indices of labels given as texts; rows without one are in ``faults``."""
    labels = ClassLabels(classes, renamed or {})
    labels.add([plain(value) for value in values], np.arange(len(values)) + first_row)
    return labels.finish(faults)
