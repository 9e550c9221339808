"""A public set as one .npz: records whose origin is written beside them, labelled or not."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, MissingInput
from ..privacy.origin import Origin
from .public import PublicSet

_KEYS = {"name", "origin", "x"}


def load_public(path: Path, *, labels: bool = True) -> PublicSet:
    """Return the set in an .npz with x, y, name and origin (public, synthetic or released).

    ``labels`` False: y may be missing, and is not read; x may then hold texts (n,), too. Raises
    ``MissingInput``, ``InvalidInput`` and, for private records, ``Refused``.
    """
    if not path.is_file():
        cure = "name an .npz file" + ", or leave --public out" * labels
        raise MissingInput(f"there is no {path}", cure=cure)
    wanted = _KEYS | ({"y"} if labels else set[str]())
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = wanted - set(file.files)
            values = {name: file[name] for name in wanted - missing}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError):
        raise _not_public(path, "it is no .npz without pickled objects") from None
    if missing:
        raise _not_public(path, f"it lacks {', '.join(sorted(missing))}")
    origin, x, y = str(values["origin"]), values["x"], values.get("y")
    if origin not in get_args(Origin):
        raise _not_public(path, f"its origin is '{origin}'")
    if problem := _fault(x, y):
        raise _not_public(path, problem)
    whole = None if y is None else y.astype(np.int64)
    return PublicSet(name=str(values["name"]), origin=cast(Origin, origin), x=x, y=whole)


def _fault(x: NDArray[Any], y: NDArray[Any] | None) -> str:
    """Return why these arrays are no records and labels, or ''."""
    if y is None:
        texts = x.dtype.kind == "U" and x.ndim == 1
        good = x.dtype.kind in "biuf" and x.ndim > 1
        return "" if texts or good else "x holds neither numbers (n, ...) nor texts (n,)"
    if y.ndim != 1 or len(x) != len(y) or y.dtype.kind not in "iu" or x.dtype.kind not in "biuf":
        return "x and y are not as many inputs and whole-numbered labels"
    return ""


def _not_public(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{path.name} is not a public set",
        why=why,
        cure="save x (raw inputs), y (class indices; not for a transfer set), name, and origin = "
        "'public', 'synthetic' or 'released' with numpy.savez",
    )
