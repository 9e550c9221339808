"""Tables in Parquet files, read batch by batch with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InvalidInput, NotAvailable
from .cells import Column
from .reader_csv import CHUNK
from .table_columns import Chunk, Columns, once


class ParquetSource:
    """One Parquet file; numbers stay numbers, a null is a missing value, row 1 is the first.

    Raises ``NotAvailable`` without pyarrow and ``InvalidInput`` for a file that is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            from pyarrow import parquet
        except ImportError:
            raise NotAvailable(
                "Parquet files cannot be read here",
                why="pyarrow is not installed",
                cure="pip install 'collegium[parquet]', or export the records as csv",
            ) from None
        try:
            self._file: Any = parquet.ParquetFile(path)
            self._header = tuple(str(name) for name in self._file.schema_arrow.names)
        except Exception:  # damage can raise anything in a decoder, and its words may quote it
            raise _damaged(path) from None

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self._path.name

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self._header

    def chunks(self, columns: Columns) -> Iterator[Chunk]:
        """Yield all rows."""
        start, batches = 1, self._batches()
        while True:
            try:
                batch = next(batches, None)
                found = None if batch is None else _columns(batch, columns)
            except Exception:  # as above
                raise _damaged(self._path) from None
            if batch is None or found is None:
                return
            rows = np.arange(start, start + batch.num_rows, dtype=np.int64)
            start += batch.num_rows
            yield Chunk(columns=found, rows=rows, whole=_whole(batch))

    def _batches(self) -> Iterator[Any]:
        return iter(self._file.iter_batches(batch_size=CHUNK, use_threads=False))


def _columns(batch: Any, columns: Columns) -> dict[str, Column]:
    return {name: _cells(batch.column(name), name in columns.numbers) for name in columns.wanted}


def _whole(batch: Any) -> dict[str, Column]:
    """Return every column, whatever the plan reads it as; one of no plain values is left out."""
    names = [str(name) for name in batch.schema.names]
    fields = [_plain(batch.column(place)) for place in range(len(names))]
    known = {place: field for place, field in enumerate(fields) if field is not None}
    return once([names[place] for place in known], list(known.values()))


def _plain(column: Any) -> Column | None:
    """Return numbers and truth values as they are, all else as texts; None for other values."""
    import pyarrow.types as kinds

    kind = column.type
    try:
        if kinds.is_integer(kind) or kinds.is_floating(kind):
            return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
        if kinds.is_boolean(kind):
            return column.to_pylist()
        return column.cast("string").to_pylist()
    except Exception:  # a list, a struct, or bytes that are no text
        return None


def _cells(column: Any, as_numbers: bool) -> Column:
    """Return numbers as an array (NaN for null), all else as Python's own values."""
    import pyarrow.types as kinds

    kind = column.type
    if as_numbers and (kinds.is_integer(kind) or kinds.is_floating(kind)):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    return column.to_pylist()


def _damaged(path: Path) -> InvalidInput:
    return InvalidInput(
        f"{path.name} is not a Parquet file",
        why="it is damaged, encrypted, or of another format",
        cure="write it again, or export the records as csv",
    )
