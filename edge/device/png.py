"""PNG files to pixels: what devices meet, decoded with bounds; the rest is left to Pillow."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .png_lines import plain_lines
from .strips import Strips

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 100_000_000
MOST_BYTES, MOST_ROW = 1 << 27, 1 << 20
"""Of a picture's pixels when they are unpacked: what their decoding costs in time."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of each colour type: grey, RGB, palette, grey and alpha, RGBA."""
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
EXIF_TEXT, XMP_TEXT = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
"""Texts in which a camera may have noted how it was held."""


class Undecoded(Exception):
    """A picture that is left to Pillow; its argument says why."""


@dataclass(slots=True)
class _Parts:
    """The parts of a file that make the picture."""

    width: int = 0
    height: int = 0
    depth: int = 0
    colour: int = 0
    palette: bytes = b""
    turn: int = 1
    packed: list[memoryview] = field(default_factory=list[memoryview])


def png_strips(raw: bytes) -> Strips:
    """Return a picture's greys or colours in strips, its turn not undone yet.

    16-bit grey is divided by 257, transparency is left out. Raises ``ValueError`` for damage, now
    or while the strips are read, and for what is too large; ``Undecoded`` for interlaced pictures
    and films.
    """
    parts = _parts(raw)
    samples = CHANNELS[parts.colour]
    row = (parts.width * samples * parts.depth + 7) // 8
    require_size(parts.height * row, row)
    lines = plain_lines(parts.packed, parts.height, row, max(1, samples * parts.depth // 8))
    return Strips(
        height=parts.height,
        width=parts.width,
        colours=parts.colour == 3 or samples >= 3,
        strips=(_pixels(parts, plain, samples) for plain in lines),
        turn=parts.turn,
    )


def require_size(unpacked: int, row: int = 0) -> None:
    """Raise ``ValueError`` for more bytes of pixels, or in one row, than a device unpacks."""
    for what, size, most in (("", unpacked, MOST_BYTES), (" in a row", row, MOST_ROW)):
        if size > most:
            raise ValueError(
                f"it has too many pixels{what}: {size / 1e6:.0f} MB unpacked, and this program "
                f"reads {most / 1e6:.0f} MB; save it smaller, or with 8 bits per colour"
            )


def _parts(raw: bytes) -> _Parts:
    parts = _Parts()
    ended = False
    for kind, content in _chunks(raw):
        if kind == b"IHDR" and not parts.width:
            _header(parts, content)
        elif kind == b"PLTE":
            parts.palette = bytes(content)
        elif kind == b"IDAT":
            parts.packed.append(content)
        elif kind == b"eXIf":
            parts.turn = exif_turn(bytes(content))
        elif kind == b"acTL":
            raise Undecoded("it is a film")
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and _may_turn(bytes(content)):
            raise Undecoded("it may be turned")
        elif kind == b"IEND":
            ended = True
            break
    if not (ended and parts.width and parts.packed) or (parts.colour == 3 and not parts.palette):
        raise ValueError("it is damaged")
    return parts


def _may_turn(text: bytes) -> bool:
    """Return whether a text may say how the camera was held: packed, or by that word."""
    if text.startswith(EXIF_TEXT):
        return True
    packed = not text.startswith(XMP_TEXT + b"\0")
    return text.startswith(XMP_TEXT) and (packed or b"rientation" in text)


def _chunks(raw: bytes) -> Iterator[tuple[bytes, memoryview]]:
    place, view = len(PNG_MAGIC), memoryview(raw)
    while place + 12 <= len(raw):
        length, kind = struct.unpack_from(">I4s", raw, place)
        content = view[place + 8 : place + 8 + length]
        if len(content) != length or place + 12 + length > len(raw):
            break
        (code,) = struct.unpack_from(">I", raw, place + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) != code:
            raise ValueError("it is damaged")
        yield kind, content
        place += 12 + length


def _header(parts: _Parts, content: memoryview) -> None:
    if len(content) != 13:
        raise ValueError("it is damaged")
    width, height, depth, colour, packing, filtering, interlaced = struct.unpack(
        ">IIBBBBB", content
    )
    if not (width and height and depth in DEPTHS.get(colour, ())) or packing or filtering:
        raise ValueError("it is damaged")
    if width * height > MOST_PIXELS:
        raise ValueError("it has too many pixels")
    if interlaced:
        raise Undecoded("it is interlaced")
    parts.width, parts.height, parts.depth, parts.colour = width, height, depth, colour


def _pixels(parts: _Parts, plain: np.ndarray, samples: int) -> np.ndarray:
    """Return greys or colours of the unfiltered lines."""
    depth, width = parts.depth, parts.width
    if depth == 16:
        wide = plain.reshape(len(plain), width, samples, 2)
        if parts.colour == 0:  # the one form of which all 16 bits count
            deep = wide[..., 0].astype(np.uint32) * 256 + wide[..., 1]
            return np.minimum(deep // 257, 255)[:, :, 0].astype(np.uint8)
        values = wide[..., 0]
    elif depth == 8:
        values = plain.reshape(len(plain), width, samples)
    else:
        bits = np.unpackbits(plain, axis=1).reshape(len(plain), -1, depth)
        weights = 1 << np.arange(depth - 1, -1, -1)
        values = (bits @ weights)[:, :width, None].astype(np.uint8)
        if parts.colour == 0:
            values *= 255 // ((1 << depth) - 1)
    if parts.colour == 3:
        colours = np.zeros((256, 3), dtype=np.uint8)
        known = np.frombuffer(parts.palette[: len(parts.palette) // 3 * 3], np.uint8)[: 256 * 3]
        colours[: len(known) // 3] = known.reshape(-1, 3)
        return colours[values[:, :, 0]]
    return values[:, :, :3] if samples >= 3 else values[:, :, 0]


def exif_turn(content: bytes) -> int:
    """Return the orientation, 1 to 8, that Exif data tell; 1 where they tell none."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (entries,) = struct.unpack_from(f"{order}H", content, start)
        for number in range(entries):
            tag, kind, count, value = struct.unpack_from(
                f"{order}HHIH", content, start + 2 + 12 * number
            )
            if (tag, kind, count) == (0x0112, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
