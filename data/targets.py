"""A record's label for each task, read from the columns that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.plan_model import ModelRef
from ..core.site_data_section import DataSection
from .cells import Column, Marks, numbers
from .problems import Faults
from .reader_labels import ClassLabels
from .site_data import Labels

Missing = NDArray[np.bool_]


class Target(Protocol):
    """Labels that are read chunk by chunk."""

    def missing(self, cells: Mapping[str, Column]) -> Missing:
        """Return (n,) which rows have no label."""
        ...

    def add(self, cells: Mapping[str, Column], rows: NDArray[np.int64], faults: Faults) -> None:
        """Add (n,) rows, none of them without a label."""
        ...

    def finish(self, faults: Faults) -> Labels:
        """Return all labels in the form of ``site_data.Labels``."""
        ...


def target_of(
    model: ModelRef, section: DataSection, columns: Sequence[str], marks: Marks
) -> Target:
    """Return how the labels of the plan's task are read from these columns.

    A task of a plug-in has class indices where the plan names classes, numbers otherwise.
    """
    if not columns:
        return NoTarget()
    if model.task == "multilabel":
        return NumberTarget(columns, marks, kinds=["zero-one"] * len(columns))
    if model.task == "survival":
        return NumberTarget(columns, marks, kinds=["time", "zero-one"])
    if model.task == "regression" or not model.classes:
        return NumberTarget(columns, marks, kinds=["number"], flat=True)
    return ClassTarget(columns[0], marks, ClassLabels(model.classes, section.labels))


class NoTarget:
    """No label is in the table: a mask is a file of its own."""

    def missing(self, cells: Mapping[str, Column]) -> Missing:
        """Return that no label is missing."""
        return np.zeros(len(next(iter(cells.values()), ())), dtype=np.bool_)

    def add(self, cells: Mapping[str, Column], rows: NDArray[np.int64], faults: Faults) -> None:
        """Add nothing."""

    def finish(self, faults: Faults) -> Labels:
        """Return an empty array."""
        return np.empty(0, dtype=np.int64)


class ClassTarget:
    """Class names, or 0 to k-1, in one column: (n,) int64."""

    def __init__(self, column: str, marks: Marks, labels: ClassLabels) -> None:
        self._column, self._marks, self._labels = column, marks, labels

    def missing(self, cells: Mapping[str, Column]) -> Missing:
        """Return (n,) which rows have no label."""
        return np.array(
            [self._marks.text(cell) is None for cell in cells[self._column]], dtype=np.bool_
        )

    def add(self, cells: Mapping[str, Column], rows: NDArray[np.int64], faults: Faults) -> None:
        """Add (n,) labels."""
        self._labels.add([self._marks.text(cell) or "" for cell in cells[self._column]], rows)

    def finish(self, faults: Faults) -> Labels:
        """Return (n,) class indices."""
        return self._labels.finish(faults, self._column)


class NumberTarget:
    """One number per column: (n, columns) float32, or (n,) where ``flat``."""

    def __init__(
        self, columns: Sequence[str], marks: Marks, *, kinds: Sequence[str], flat: bool = False
    ) -> None:
        """``kinds``: "number", "time" (0 or more) or "zero-one", for each column."""
        self._columns, self._marks, self._kinds, self._flat = columns, marks, kinds, flat
        self._values: list[NDArray[np.float32]] = []

    def missing(self, cells: Mapping[str, Column]) -> Missing:
        """Return (n,) which rows lack one of the numbers."""
        found = [numbers(cells[name], self._marks) for name in self._columns]
        missing = [np.isnan(each.values) & ~each.bad for each in found]
        return np.logical_or.reduce(missing)

    def add(self, cells: Mapping[str, Column], rows: NDArray[np.int64], faults: Faults) -> None:
        """Add (n,) labels."""
        values: list[NDArray[np.float32]] = []
        for name, kind in zip(self._columns, self._kinds, strict=True):
            read = numbers(cells[name], self._marks)
            wrong = read.bad
            if kind == "zero-one":
                wrong = wrong | ~np.isin(read.values, (0, 1))
            if kind == "time":
                wrong = wrong | ~(read.values >= 0)
            faults.add(name, kind, rows[wrong].tolist())
            values.append(read.values)
        self._values.append(np.stack(values, axis=1))

    def finish(self, faults: Faults) -> Labels:
        """Return (n, columns) or (n,) float32."""
        empty = np.empty((0, len(self._columns)), dtype=np.float32)
        whole = np.concatenate([empty, *self._values])
        return whole[:, 0] if self._flat else whole
