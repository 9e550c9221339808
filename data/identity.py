"""What a record is, whatever a plan makes of it: 16 bytes of what the reader found.

Nothing of plan or site.toml has a say: a table's row is all of its columns by name, a picture its
pixels before they are resized, a text its letters. Only keyed digests of these bytes are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cells import Column, as_text
from .growing import chunks_of

Identities = NDArray[np.uint8]
"""(n, 16): one record per row."""
WIDTH = 16
MISSING = frozenset({"?", "-", ".", "na", "n/a", "nan", "null", "none"})
"""Texts (lower case) that mean nothing here, so that a null and its usual marks are one."""


def row_ids(columns: Mapping[str, Column], count: int) -> Identities:
    """Return (count, 16) the identities of a table's rows: all their values, by column name.

    ``columns`` hold (count,) cells. The order of columns, empty cells and how a number is written
    ("1", "1.0", 1) make no difference; fractions are compared as float32.
    """
    cells = [_named(name, columns[name]) for name in sorted(columns)]
    rows = map(b"".join, zip(*cells, strict=True)) if cells else [b""] * count
    return _hashed(rows, b"collegium/row/1")


def text_ids(texts: Iterable[str]) -> Identities:
    """Return (n, 16) the identities of texts; spaces around them make no difference."""
    return _hashed((_bytes(text.strip()) for text in texts), b"collegium/text/1")


def pixel_id(pixels: NDArray[Any]) -> bytes:
    """Return the identity of a picture: uint8 (height, width[, channels]), grey also as colour."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        grey = pixels[:, :, 0]
        if (grey == pixels[:, :, 1]).all() and (grey == pixels[:, :, 2]).all():
            pixels = grey
    raw = np.ascontiguousarray(pixels).tobytes()
    return hashlib.blake2b(raw, digest_size=WIDTH, person=b"collegium/pix/1").digest()


def array_ids(x: NDArray[Any], y: NDArray[Any]) -> Identities:
    """Return (n, 16) the identities of arrays: uint8 pictures alone, other values with labels.

    ``x`` (n, ...) numbers; ``y`` (n, ...) numbers or texts.
    """
    if x.dtype == np.uint8 and x.ndim >= 3:
        return joined_ids([pixel_id(pixels) for pixels in x])
    found = [np.empty((0, WIDTH), dtype=np.uint8)]
    for part in chunks_of(x):
        values, labels = _numbers_of(x[part]), _labels_of(y[part])
        rows = (row.tobytes() + label for row, label in zip(values, labels, strict=True))
        found.append(_hashed(rows, b"collegium/arr/1"))
    return np.concatenate(found)


def joined_ids(ids: Sequence[bytes]) -> Identities:
    """Return identities as one array (n, 16)."""
    return np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(len(ids), WIDTH)


def _hashed(rows: Iterable[bytes], kind: bytes) -> Identities:
    return joined_ids(
        [hashlib.blake2b(row, digest_size=WIDTH, person=kind).digest() for row in rows]
    )


def _named(name: str, column: Column) -> list[bytes]:
    """Return (n,) each cell as name and canonical value, nothing for an empty cell."""
    tag = hashlib.blake2b(_bytes(name.strip()), digest_size=8).digest()
    values = _all_numbers(column)
    if values is not None:
        return _number_cells(tag, values)
    if all(cell is None or type(cell) is str for cell in column):  # often a few texts, repeated
        distinct = list(dict.fromkeys(column))
        known = dict(zip(distinct, _mixed_cells(tag, distinct), strict=True))
        return [known[cell] for cell in column]
    return _mixed_cells(tag, column)


def _mixed_cells(tag: bytes, column: Column) -> list[bytes]:
    found = [_number(cell) for cell in column]
    cells = _number_cells(tag, np.array([np.nan if one is None else one for one in found]))
    for row, number in enumerate(found):
        if number is None and (text := _text(column[row])):
            raw = _bytes(text)
            cells[row] = tag + b"t" + len(raw).to_bytes(8, "big") + raw
    return cells


def _all_numbers(column: Column) -> NDArray[np.float64] | None:
    """Return (n,) numbers where all cells are numbers (``_number`` of each); None otherwise."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return column.astype(np.float64)
    try:
        if "_" in "".join(column):
            return None
        return np.array([float(cell) for cell in column], dtype=np.float64)
    except (TypeError, ValueError):  # not all of them are texts, or numbers
        return None


def _number(cell: Any) -> float | None:
    """Return the number that a cell is, also as a text, None for anything else."""
    try:
        return None if isinstance(cell, str) and "_" in cell else float(cell)
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return None


def _number_cells(tag: bytes, values: NDArray[np.float64]) -> list[bytes]:
    width = len(tag) + 1 + 8
    rows = np.empty((len(values), width), dtype=np.uint8)
    rows[:, : width - 8] = np.frombuffer(tag + b"n", dtype=np.uint8)
    rows[:, width - 8 :] = _canonical(values).astype("<f8").reshape(-1, 1).view(np.uint8)
    raw = rows.tobytes()
    cells = [raw[start : start + width] for start in range(0, len(raw), width)]
    for row in np.flatnonzero(np.isnan(values)).tolist():
        cells[row] = b""
    return cells


def _canonical(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers with one zero and one NaN: whole ones as they are, fractions as float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32).astype(np.float64)
        found = np.where(values == np.floor(values), values, narrow) + 0.0
    found[np.isnan(found)] = np.nan
    return found


def _text(cell: object) -> str:
    found = as_text(cell) or ""
    return "" if found.casefold() in MISSING else found


def _numbers_of(values: NDArray[Any]) -> NDArray[np.float64]:
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    return _canonical(flat.astype(np.float64)).astype("<f8")


def _labels_of(y: NDArray[Any]) -> list[bytes]:
    if y.dtype.kind in "fiub":
        return [row.tobytes() for row in _numbers_of(y)]
    return [_label(row) for row in y.reshape(len(y), -1).tolist()]


def _label(row: Sequence[object]) -> bytes:
    return b"\0".join(_bytes(_text(cell)) for cell in row)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
