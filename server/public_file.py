"""public.npz: the public records on which a coordinator may measure the global model."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import cast, get_args

import numpy as np

from ..core.errors import InvalidInput, MissingInput
from ..core.files import write_atomic
from ..data.public import PublicSet
from ..privacy.origin import Origin

FILE = "public.npz"
_KEYS = {"name", "origin", "x", "y"}


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


def load_public(path: Path) -> PublicSet:
    """Return the set in an .npz with x, y, name and origin (public, synthetic or released).

    Raises ``MissingInput``, ``InvalidInput`` and, for private records, ``Refused``.
    """
    if not path.is_file():
        raise MissingInput(f"there is no {path}", cure="name an .npz file, or leave --public out")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = _KEYS - set(file.files)
            values = {name: file[name] for name in _KEYS - missing}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError):
        raise _not_public(path, "it is no .npz without pickled objects") from None
    if missing:
        raise _not_public(path, f"it lacks {', '.join(sorted(missing))}")
    origin, x, y = str(values["origin"]), values["x"], values["y"]
    if origin not in get_args(Origin):
        raise _not_public(path, f"its origin is '{origin}'")
    if y.ndim != 1 or len(x) != len(y) or y.dtype.kind not in "iu" or x.dtype.kind not in "biuf":
        raise _not_public(path, "x and y are not as many inputs and whole-numbered labels")
    return PublicSet(
        name=str(values["name"]), origin=cast(Origin, origin), x=x, y=y.astype(np.int64)
    )


def _not_public(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{path.name} is not a public set",
        why=why,
        cure="save x (raw inputs), y (class indices), name, and origin = 'public', 'synthetic' "
        "or 'released' with numpy.savez",
    )
