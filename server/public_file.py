"""public.npz: the public records on which a coordinator may measure the global model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..core.errors import InvalidInput
from ..core.files import write_atomic
from ..data.public import PublicSet
from ..data.public_file import load_public

FILE = "public.npz"


def write_public(folder: Path, test: PublicSet) -> Path:
    """Write a labelled public set into a run's folder; return its path."""
    if test.y is None:
        raise InvalidInput(
            f"'{test.name}' has no labels", why="metrics need them", cure="add the array y"
        )
    buffer = io.BytesIO()
    np.savez(buffer, x=test.x, y=test.y, name=np.array(test.name), origin=np.array(test.origin))
    write_atomic(folder / FILE, buffer.getvalue())
    return folder / FILE


def read_public(folder: Path) -> PublicSet | None:
    """Return the run's public set, None where it has none; raises as ``load_public``."""
    path = folder / FILE
    return load_public(path) if path.is_file() else None
