"""Raw records from a file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import DeviceError
from .files import read_limited
from .names import MAX_FILE_BYTES


def read_input(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read raw records from .npy, .npz (its ``x``, or its only array) or .csv (one per row)."""
    raw = read_limited(path, MAX_FILE_BYTES)
    try:
        if path.suffix == ".csv":
            return _csv(raw.decode(), shape)
        loaded = np.load(io.BytesIO(raw), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        return (
            loaded["x"]
            if "x" in loaded.files or len(loaded.files) != 1
            else loaded[loaded.files[0]]
        )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DeviceError("BAD INPUT", f"{path.name} cannot be read: {error}", 65) from None


def _csv(text: str, shape: tuple[int, ...]) -> np.ndarray:
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    if rows and not _numeric(rows[0]):  # a header
        rows = rows[1:]
    return np.array([[float(cell) for cell in row] for row in rows]).reshape(-1, *shape)


def _numeric(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False
