"""PNG files to pixels: what devices meet, decoded with bounds; the rest is left to Pillow."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 100_000_000
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
    packed: list[bytes] = field(default_factory=list[bytes])


def png_pixels(raw: bytes) -> np.ndarray:
    """Return uint8 (height, width) of greys or (height, width, 3) of colours, upright.

    16-bit grey is divided by 257, transparency is left out, a camera's turn is undone. Raises
    ``ValueError`` for damage and for too many pixels, ``Undecoded`` for interlaced pictures
    and films.
    """
    parts = _parts(raw)
    samples = CHANNELS[parts.colour]
    row = (parts.width * samples * parts.depth + 7) // 8
    inflate = zlib.decompressobj()
    try:
        lines = inflate.decompress(b"".join(parts.packed), parts.height * (row + 1))
    except zlib.error:
        raise ValueError("it is damaged") from None
    if len(lines) != parts.height * (row + 1):
        raise ValueError("it is damaged")
    table = np.frombuffer(lines, np.uint8).reshape(parts.height, row + 1)
    plain = _unfiltered(table[:, 0], table[:, 1:], max(1, samples * parts.depth // 8))
    return upright(_pixels(parts, plain, samples), parts.turn)


def _parts(raw: bytes) -> _Parts:
    parts = _Parts()
    ended = False
    for kind, content in _chunks(raw):
        if kind == b"IHDR" and not parts.width:
            _header(parts, content)
        elif kind == b"PLTE":
            parts.palette = content
        elif kind == b"IDAT":
            parts.packed.append(content)
        elif kind == b"eXIf":
            parts.turn = exif_turn(content)
        elif kind == b"acTL":
            raise Undecoded("it is a film")
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and _may_turn(content):
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


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG_MAGIC)
    while place + 12 <= len(raw):
        length, kind = struct.unpack_from(">I4s", raw, place)
        content = raw[place + 8 : place + 8 + length]
        if len(content) != length or place + 12 + length > len(raw):
            break
        (code,) = struct.unpack_from(">I", raw, place + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) != code:
            raise ValueError("it is damaged")
        yield kind, content
        place += 12 + length


def _header(parts: _Parts, content: bytes) -> None:
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


def _unfiltered(filters: np.ndarray, coded: np.ndarray, step: int) -> np.ndarray:
    """Return the bytes of each line before filtering; ``step`` bytes lie between two pixels."""
    if len(filters) and filters.max() > 4:
        raise ValueError("it is damaged")
    plain = np.zeros_like(coded)
    above = np.zeros(coded.shape[1], dtype=np.uint8)
    for number, kind in enumerate(filters.tolist()):
        line = coded[number]
        if kind == 0:
            plain[number] = line
        elif kind == 1:
            plain[number] = _running(line, step)
        elif kind == 2:
            plain[number] = line + above
        else:
            plain[number] = _one_by_one(line.tolist(), above.tolist(), step, paeth=kind == 4)
        above = plain[number]
    return plain


def _running(line: np.ndarray, step: int) -> np.ndarray:
    """Return the sums modulo 256 of each of the ``step`` bytes of a pixel."""
    padded = np.zeros(-(-len(line) // step) * step, dtype=np.uint8)
    padded[: len(line)] = line
    sums = np.cumsum(padded.reshape(-1, step), axis=0, dtype=np.uint8)
    return sums.reshape(-1)[: len(line)]


def _one_by_one(line: list[int], above: list[int], step: int, *, paeth: bool) -> np.ndarray:
    """Return a line whose bytes each need the byte before: averages, or Paeth's predictor."""
    found = [0] * step + line
    corner = [0] * step + above
    for place in range(step, len(found)):
        left, up = found[place - step], corner[place]
        if paeth:
            slope = corner[place - step]
            to_left, to_up, to_slope = (
                abs(up - slope), abs(left - slope), abs(left + up - 2 * slope)
            )  # fmt: skip
            nearest = left if to_left <= to_up and to_left <= to_slope else (
                up if to_up <= to_slope else slope
            )  # fmt: skip
        else:
            nearest = (left + up) >> 1
        found[place] = (found[place] + nearest) & 255
    return np.array(found[step:], dtype=np.uint8)


def _pixels(parts: _Parts, plain: np.ndarray, samples: int) -> np.ndarray:
    """Return greys or colours of the unfiltered lines."""
    depth, width = parts.depth, parts.width
    if depth == 16:
        wide = plain.reshape(parts.height, width, samples, 2)
        if parts.colour == 0:  # the one form of which all 16 bits count
            deep = wide[..., 0].astype(np.int64) * 256 + wide[..., 1]
            return np.minimum(deep // 257, 255)[:, :, 0].astype(np.uint8)
        values = wide[..., 0]
    elif depth == 8:
        values = plain.reshape(parts.height, width, samples)
    else:
        bits = np.unpackbits(plain, axis=1).reshape(parts.height, -1, depth)
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


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Return pixels as they were seen; ``turn`` is Exif's orientation, 1 to 8."""
    if turn in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


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
