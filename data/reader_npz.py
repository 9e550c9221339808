"""Records as NumPy arrays in one .npz file; a pickled object is never unpacked."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, Problem
from .reader_labels import class_indices, rows_in_words
from .reader_table import Table

_WHOLE = {"x", "y"}
_PARTS = {"train_x", "train_y", "test_x", "test_y"}
_UNITS = {"train_units", "test_units"}
_UNREADABLE = (
    ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError,
)  # fmt: skip
"""What damage can raise; the last two: a compression that is not there, an encrypted archive."""


def read_npz(path: Path, *, classes: Sequence[str]) -> Table | tuple[Table, Table]:
    """Return the arrays ``x, y [, unit]`` as one table, or the (training, test) parts.

    The parts are ``train_x, train_y, test_x, test_y [, train_units, test_units]``, and their
    order is kept. Raises ``InvalidInput`` for other names, pickled arrays, and values that are
    not finite numbers or no class of the plan.
    """
    arrays = _arrays(path)
    names = set(arrays)
    if _WHOLE <= names <= _WHOLE | {"unit"}:
        return _table(path, arrays["x"], arrays["y"], arrays.get("unit"), classes)
    if names in (_PARTS, _PARTS | _UNITS):
        train, test = (
            _table(path, arrays[f"{p}_x"], arrays[f"{p}_y"], arrays.get(f"{p}_units"), classes)
            for p in ("train", "test")
        )
        if train.x.shape[1:] != test.x.shape[1:]:
            raise InvalidInput(
                f"{path.name}: train_x and test_x hold records of different shapes",
                cure="write both parts from the same table",
            )
        return train, test
    raise InvalidInput(
        f"{path.name} does not hold the arrays of a site",
        why="they are x, y and perhaps unit; or train_x, train_y, test_x, test_y and perhaps"
        " train_units, test_units",
        cure="save them with numpy.savez under these names",
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE:
        # NumPy's own words may quote what it found in the file
        raise InvalidInput(
            f"{path.name} is not an .npz file of plain arrays",
            why="it is damaged, or holds objects that would have to be unpickled",
            cure="save plain arrays of numbers and texts with numpy.savez, without a password",
        ) from None


def _table(
    path: Path,
    x: NDArray[Any],
    y: NDArray[Any],
    units: NDArray[Any] | None,
    classes: Sequence[str],
) -> Table:
    lengths = {
        len(array) if array.ndim else -1 for array in (x, y) + (() if units is None else (units,))
    }
    if len(lengths) != 1 or y.ndim != 1 or x.ndim < 2 or (units is not None and units.ndim != 1):
        raise InvalidInput(
            f"{path.name}: inputs, labels and units do not belong together",
            why="x is (records, ...), y and unit are (records,)",
            cure="save them again from one table",
        )
    if x.dtype.kind not in "fiub":
        raise InvalidInput(
            f"{path.name}: the inputs are not numbers", cure="turn categories into numbers first"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(x, dtype=np.float32)
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        raise InvalidInput(path.name, [_not_finite(np.flatnonzero(~finite).tolist())])
    return Table(x=values, y=_labels(path, y, classes), units=units)


def _labels(path: Path, y: NDArray[Any], classes: Sequence[str]) -> NDArray[np.int64]:
    if y.dtype.kind in "iu":
        outside = np.flatnonzero((y < 0) | (y >= len(classes)))
        if not outside.size:
            return y.astype(np.int64)
    return class_indices([str(value) for value in y.tolist()], classes, path, first_row=0)


def _not_finite(rows: Sequence[int]) -> Problem:
    return Problem(
        where=rows_in_words(rows, 0),
        what="holds NaN or infinite values",
        why="records are raw numbers; a missing value cannot be guessed here",
        cure="fill it by a rule that you can defend, or leave the record out",
    )
