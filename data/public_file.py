"""A public set as one .npz: labelled records whose origin is written beside them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import cast, get_args

import numpy as np

from ..core.errors import InvalidInput, MissingInput
from ..privacy.origin import Origin
from .public import PublicSet

_KEYS = {"name", "origin", "x", "y"}


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
