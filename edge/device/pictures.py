"""One picture as the model's raw record: decoded, upright, of the right size and channels."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from .png import MOST_PIXELS, PNG_MAGIC, Undecoded, png_strips, require_size
from .resizing import resized
from .strips import SIDEWAYS, Strips, strips_of, upright

JPEG_MAGIC = b"\xff\xd8\xff"
PNM_HEADER = re.compile(
    rb"P([56])(?:\s|#[^\n]*\n)+(\d{1,5})(?:\s|#[^\n]*\n)+(\d{1,5})(?:\s|#[^\n]*\n)+(\d{1,5})\s"
)


def picture(raw: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Return a PNG, PGM, PPM or (through Pillow) JPEG as uint8 (height, width, channels).

    The same numbers as Collegium's reader of images at a site. Raises ``ValueError``.
    """
    if raw.startswith(PNG_MAGIC):
        try:
            found = png_strips(raw)
        except Undecoded as why:
            found = _by_pillow(raw, "PNG", str(why))
    elif raw.startswith(JPEG_MAGIC):
        found = _by_pillow(raw, "JPEG", "it is a JPEG")
    elif raw[:2] in (b"P5", b"P6"):
        found = _pnm(raw)
    else:
        raise ValueError("it is no PNG, JPEG, PGM, PPM or .npy")
    return fitted_strips(found, shape)


def fitted_strips(found: Strips, shape: tuple[int, ...]) -> np.ndarray:
    """Return a picture as uint8 of ``shape`` (height, width, channels), upright."""
    height, width, channels = shape
    found = found if channels == 3 else found.greys()
    size = (width, height) if found.turn in SIDEWAYS else (height, width)
    if (found.height, found.width) == size:
        pixels = upright(found.whole(), found.turn)
    else:
        pixels = _resized(found, size)
    return np.repeat(pixels[:, :, None], channels, axis=2) if pixels.ndim == 2 else pixels


def _resized(found: Strips, size: tuple[int, int]) -> np.ndarray:
    """Resize as the site did where Pillow is here; without it within 1 of 255 of that.

    Pillow holds the whole picture; without it a strip of rows is held, whatever its size.
    """
    try:
        from PIL import Image
    except ImportError:
        return upright(resized(found, *size), found.turn)
    seen = np.ascontiguousarray(upright(found.whole(), found.turn))
    height, width = size[::-1] if found.turn in SIDEWAYS else size
    return np.asarray(Image.fromarray(seen).resize((width, height), Image.Resampling.BILINEAR))


def _pnm(raw: bytes) -> Strips:
    header = PNM_HEADER.match(raw)
    if header is None or int(header[4]) not in (255, 65535):
        raise ValueError("it has a damaged header, or a largest value other than 255 and 65535")
    width, height, samples = int(header[2]), int(header[3]), 1 if header[1] == b"5" else 3
    deep = int(header[4]) == 65535
    content = memoryview(raw)[header.end() :]
    if not 0 < width * height <= MOST_PIXELS or len(content) != width * height * samples * (
        1 + deep
    ):
        raise ValueError("it is damaged, or has too many pixels")
    values = np.frombuffer(content, ">u2" if deep else np.uint8)
    values = (values // 257).astype(np.uint8) if deep else values
    return strips_of(values.reshape((height, width) if samples == 1 else (height, width, 3)))


def _by_pillow(raw: bytes, kind: str, why: str) -> Strips:
    try:
        from PIL import Image
    except ImportError:
        cure = "save it as a plain PNG, or install pillow on this device"
        raise ValueError(f"{why}, which needs Pillow: {cure}") from None
    try:
        opened: Any = Image.open(io.BytesIO(raw), formats=[kind])
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError("it has too many pixels")
        require_size(opened.width * opened.height * len(opened.getbands()))
        turn = int(opened.getexif().get(0x0112, 1))
        grey = opened.mode in ("1", "L", "LA", "I", "I;16")
        if opened.mode.startswith("I"):
            deep = np.asarray(opened).astype(np.int64)
            pixels = np.clip(deep // 257, 0, 255).astype(np.uint8)
        else:
            pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    except (ValueError, MemoryError):
        raise
    except Exception:  # damage can raise anything in a decoder
        raise ValueError("it is damaged") from None
    return strips_of(upright(pixels, turn))
