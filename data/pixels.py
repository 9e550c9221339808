"""One picture as an array of the plan's shape: decoded, turned upright, resized; never fitted."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from .identity import pixel_id

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG")
MOST_PIXELS = 100_000_000
"""A picture of more is not decoded: a small file can hold a very large one."""


class BadPicture(Exception):
    """A picture that cannot be read; its argument says why, and nothing of what it shows."""


def decoded(raw: bytes, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return a PNG or JPEG as uint8 of ``shape`` (height, width, channels), 0..255.

    16-bit grey is divided by 257, transparency is left out, a camera's turn is undone. Another
    size is resized with Pillow's bilinear filter, which averages over the area when shrinking.
    Raises ``BadPicture``.
    """
    return identified(raw, shape)[0]


def identified(raw: bytes, shape: Sequence[int]) -> tuple[NDArray[np.uint8], bytes]:
    """Return ``decoded``, and which picture it is: of its pixels upright, before any resizing.

    Raises ``BadPicture``.
    """
    from PIL import ImageOps

    picture = _opened(raw)
    try:
        upright = ImageOps.exif_transpose(picture)
        colours = _pixels(upright, channels=3)
        own = colours if shape[2] == 3 else _pixels(upright, channels=shape[2])
        return fitted(own, shape), pixel_id(colours)
    except Exception:  # damage can raise anything in a decoder
        raise BadPicture("it is damaged") from None


def decoded_mask(raw: bytes, shape: Sequence[int]) -> NDArray[np.int64]:
    """Return a PNG's values as whole numbers (height, width); each pixel keeps one of them.

    Raises ``BadPicture``, also for a mask in colours.
    """
    from PIL import Image

    picture = _opened(raw)
    try:
        if picture.mode not in ("L", "P", "1", "I", "I;16"):
            raise BadPicture("a mask has one number per pixel, this one is in colours")
        size = (shape[1], shape[0])
        grey = picture.convert("L") if picture.mode == "1" else picture
        if grey.size != size:
            grey = grey.resize(size, Image.Resampling.NEAREST)
        values = np.asarray(grey).astype(np.int64)
        return np.minimum(values, 1) if picture.mode == "1" else values
    except BadPicture:
        raise
    except Exception:  # damage can raise anything in a decoder
        raise BadPicture("it is damaged") from None


def fitted(pixels: NDArray[Any], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return uint8 pixels (height, width[, channels]) in ``shape``; grey becomes three alike.

    Raises ``BadPicture`` when colours would have to become grey in an unknown way.
    """
    from PIL import Image

    height, width, channels = shape
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 3 and (pixels.shape[2] != 3 or channels != 3):
        raise BadPicture(f"it has {pixels.shape[2]} channels, the plan's images have {channels}")
    if pixels.shape[:2] != (height, width):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], channels, axis=2)
    return pixels.astype(np.uint8, copy=False)


def image_shape(shape: Sequence[int], reader: str) -> tuple[int, int, int]:
    """Return height, width and channels of the plan; raises ``InvalidInput`` without them."""
    if len(shape) != 3:
        raise InvalidInput(
            f"the plan says no shape of images, which reader {reader} needs",
            why="every site's images have one shape",
            cure="agree on a plan with [model] image, like image = [224, 224, 3]",
        )
    return shape[0], shape[1], shape[2]


def _opened(raw: bytes) -> Image:
    """Return the picture, of which only the header is read; a bomb is refused by its size."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadPicture("it has too many pixels") from None
    except Exception:  # damage can raise anything in a decoder
        raise BadPicture("it is no PNG or JPEG") from None
    if picture.width * picture.height > MOST_PIXELS:
        raise BadPicture("it has too many pixels")
    return picture


def _pixels(picture: Image, *, channels: int) -> NDArray[np.uint8]:
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.int64)
        return np.clip(deep // 257, 0, 255).astype(np.uint8)
    return np.asarray(picture.convert("RGB" if channels == 3 else "L"))
