"""One picture as the model's raw record: decoded, upright, of the right size and channels."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from .png import MOST_PIXELS, PNG_MAGIC, Undecoded, png_pixels, upright
from .resizing import resized_pixels

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
            pixels = png_pixels(raw)
        except Undecoded as why:
            pixels = _by_pillow(raw, "PNG", str(why))
    elif raw.startswith(JPEG_MAGIC):
        pixels = _by_pillow(raw, "JPEG", "it is a JPEG")
    elif raw[:2] in (b"P5", b"P6"):
        pixels = _pnm(raw)
    else:
        raise ValueError("it is no PNG, JPEG, PGM, PPM or .npy")
    return fitted_pixels(pixels, shape)


def fitted_pixels(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return uint8 greys (rows, columns) or colours (rows, columns, 3) in ``shape``."""
    height, width, channels = shape
    if pixels.ndim == 3 and channels != 3:
        weights = np.array([19595, 38470, 7471])  # ITU-R 601-2 luma, as Pillow rounds it
        pixels = ((pixels.astype(np.int64) @ weights + 0x8000) >> 16).astype(np.uint8)
    if pixels.shape[:2] != (height, width):
        pixels = _resized(pixels, height, width)
    return np.repeat(pixels[:, :, None], channels, axis=2) if pixels.ndim == 2 else pixels


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize as the site did where Pillow is here; without it within 1 of 255 of that."""
    try:
        from PIL import Image
    except ImportError:
        return resized_pixels(pixels, height, width)
    whole = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR))


def _pnm(raw: bytes) -> np.ndarray:
    header = PNM_HEADER.match(raw)
    if header is None or int(header[4]) not in (255, 65535):
        raise ValueError("it has a damaged header, or a largest value other than 255 and 65535")
    width, height, samples = int(header[2]), int(header[3]), 1 if header[1] == b"5" else 3
    deep = int(header[4]) == 65535
    content = raw[header.end() :]
    if not 0 < width * height <= MOST_PIXELS or len(content) != width * height * samples * (
        1 + deep
    ):
        raise ValueError("it is damaged, or has too many pixels")
    values = np.frombuffer(content, ">u2" if deep else np.uint8)
    values = (values // 257).astype(np.uint8) if deep else values
    return values.reshape((height, width) if samples == 1 else (height, width, 3))


def _by_pillow(raw: bytes, kind: str, why: str) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError:
        cure = "save it as a plain PNG, or install pillow on this device"
        raise ValueError(f"{why}, which needs Pillow: {cure}") from None
    try:
        opened: Any = Image.open(io.BytesIO(raw), formats=[kind])
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError("it has too many pixels")
        turn = int(opened.getexif().get(0x0112, 1))
        grey = opened.mode in ("1", "L", "LA", "I", "I;16")
        if opened.mode.startswith("I"):
            deep = np.asarray(opened).astype(np.int64)
            pixels = np.clip(deep // 257, 0, 255).astype(np.uint8)
        else:
            pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    except ValueError:
        raise
    except Exception:  # damage can raise anything in a decoder
        raise ValueError("it is damaged") from None
    return upright(pixels, turn)
