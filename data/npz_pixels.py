"""Pictures that are arrays: pixels as they are, or one array of JPEG bytes with offsets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from .identity import Identities, joined_ids
from .pixels import BadPicture, fitted, identified, image_shape
from .problems import row_words


def images(x: NDArray[Any], shape: Sequence[int], *, source: str) -> NDArray[Any]:
    """Return (n, height, width, channels): uint8 stays uint8, all else becomes float32.

    Pixels of another size are resized as the image reader does, where they are uint8; a flat
    row of the right length is taken as it is. Raises ``InvalidInput`` for other shapes.
    """
    height, width, channels = image_shape(shape, "npz")
    count = len(x)
    values = x if x.dtype == np.uint8 else _floats(x)
    if math.prod(x.shape[1:]) == height * width * channels and x.shape[1:] in (
        (height, width, channels),
        (height, width),
        (height * width * channels,),
    ):
        return np.ascontiguousarray(values).reshape(count, height, width, channels)
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise InvalidInput(
            f"{source}: a record has the shape {x.shape[1:]}, the plan's images {tuple(shape)}",
            why="only uint8 pixels are resized",
            cure="save x as uint8 (records, height, width, channels)",
        )
    found = np.empty((count, height, width, channels), dtype=np.uint8)
    try:
        for place, pixels in enumerate(x):
            found[place] = fitted(pixels, (height, width, channels))
    except BadPicture as error:
        raise InvalidInput(
            f"{source}: {error}", cure="save pixels with the plan's channels"
        ) from None
    return found


def jpegs(
    data: NDArray[Any],
    offset: NDArray[Any],
    shape: Sequence[int],
    chosen: NDArray[np.bool_],
    *,
    source: str,
) -> tuple[NDArray[np.uint8], Identities]:
    """Return (m, height, width, channels), the chosen of n pictures, and which they are (m, 16).

    Picture i is ``data[offset[i] : offset[i + 1]]``. Raises ``InvalidInput`` when the
    offsets do not fit, and with the rows that cannot be decoded.
    """
    size = image_shape(shape, "npz")
    whole = data.dtype == np.uint8 and data.ndim == 1 and offset.ndim == 1
    fits = (
        whole
        and offset.dtype.kind in "iu"
        and len(offset) == len(chosen) + 1
        and int(offset[0]) >= 0
        and int(offset[-1]) <= len(data)
        and bool((np.diff(offset.astype(np.int64)) >= 0).all())
    )
    if not fits:
        raise InvalidInput(
            f"{source}: jpeg, offset and y do not belong together",
            why="picture i is jpeg[offset[i] : offset[i + 1]], and each has one label",
            cure="save jpeg as uint8, and one offset more than there are labels",
        )
    rows = np.flatnonzero(chosen)
    found = np.empty((len(rows), *size), dtype=np.uint8)
    bad: dict[str, list[int]] = {}
    ids: list[bytes] = []
    for place, row in enumerate(rows.tolist()):
        raw = data[int(offset[row]) : int(offset[row + 1])].tobytes()
        try:
            found[place], own = identified(raw, size)
            ids.append(own)
        except BadPicture as error:
            bad.setdefault(str(error), []).append(row)
    for why, numbers in bad.items():
        named = f"{row_words(numbers)}, {len(numbers)} of {len(rows)} pictures"
        raise InvalidInput(
            f"{source}: {named} cannot be read",
            why=why,
            cure="encode them again, or leave them out",
        )
    return found, joined_ids(ids)


def _floats(x: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, dtype=np.float32)
