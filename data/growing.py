"""Arrays that grow while a file is read: in memory, beyond a size in a nameless temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SPILL_BYTES = 256 * 2**20
"""Bytes of one array above which it lies on disk."""
_CHUNK_BYTES = 16 * 2**20


class Growing:
    """Rows of one shape, appended in chunks; ``spill_bytes`` in memory at most.

    The file has no name and is gone with the process; the operating system keeps in memory what
    it has room for. It lies where ``TMPDIR`` says: name a disk there that may hold records.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: DTypeLike, *, spill_bytes: int = SPILL_BYTES
    ) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._spill = spill_bytes
        self._chunks: list[NDArray[Any]] = []
        self._file: IO[bytes] | None = None
        self._rows = self._bytes = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Append (n, *shape) rows."""
        rows = np.ascontiguousarray(rows, dtype=self._dtype).reshape(len(rows), *self._shape)
        self._rows += len(rows)
        self._bytes += rows.nbytes
        if self._file is None and self._bytes > self._spill:
            self._file = tempfile.TemporaryFile(prefix="collegium-")  # noqa: SIM115
            for chunk in self._chunks:
                self._file.write(chunk.data)
            self._chunks = []
        if self._file is None:
            self._chunks.append(rows)
        elif rows.nbytes:
            self._file.write(rows.data)

    def finish(self) -> NDArray[Any]:
        """Return all rows (n, *shape): an array, or a writable map of the nameless file."""
        if self._file is None:
            empty = np.empty((0, *self._shape), dtype=self._dtype)
            return np.concatenate([empty, *self._chunks])
        self._file.flush()
        whole = np.memmap(
            self._file, dtype=self._dtype, mode="r+", shape=(self._rows, *self._shape)
        )
        self._file.close()  # the map keeps it alive
        self._file = None
        return whole


def chunks_of(array: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of an array's rows, about 16 MB each."""
    row = max(1, array.nbytes // max(1, len(array)))
    step = max(1, _CHUNK_BYTES // row)
    for start in range(0, len(array), step):
        yield slice(start, start + step)


def take(array: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the chosen rows, in order; those of an array on disk lie on disk again."""
    if not isinstance(array, np.memmap):
        return array[chosen]
    found = Growing(array.shape[1:], array.dtype, spill_bytes=0)
    for part in chunks_of(array):
        found.append(np.asarray(array[part])[chosen[part]])
    return found.finish()
