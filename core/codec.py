"""How a vector becomes bytes on the wire: float32, bf16, int8.

Encoding happens after the noise, so it is post-processing and costs no privacy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .layout import Vector

BLOCK = 2048
"""Coordinates that share one int8 scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A named pair of functions between (d,) float32 and bytes of a length known from d.

    ``relative_error`` bounds ||decode(encode(v)) - v|| / ||v||, which admission adds to its
    norm bound.
    """

    name: str
    encode: Callable[[Vector], bytes]
    decode: Callable[[bytes, int], Vector]
    size_bytes: Callable[[int], int]
    relative_error: float


def codec(name: str) -> Codec:
    """Return the codec of that name; raises ``KeyError`` when there is none."""
    return _CODECS[name]


def codec_names() -> tuple[str, ...]:
    """Return the names a plan may use."""
    return tuple(_CODECS)


def _encode_float32(vector: Vector) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()


def _decode_float32(data: bytes, size: int) -> Vector:
    return np.frombuffer(data, dtype="<f4", count=size).astype(np.float32, copy=False)


def _encode_bf16(vector: Vector) -> bytes:
    """Round to nearest, ties to even; NaN and infinities stay non-finite."""
    bits = vector.astype("<f4", copy=False).view("<u4")
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> 16
    kept = np.where(np.isfinite(vector), rounded, (bits >> np.uint32(16)) | np.uint32(0x40))
    return kept.astype("<u2").tobytes()


def _decode_bf16(data: bytes, size: int) -> Vector:
    high = np.frombuffer(data, dtype="<u2", count=size).astype("<u4")
    return (high << np.uint32(16)).view("<f4").astype(np.float32, copy=False)


def _encode_int8(vector: Vector) -> bytes:
    """Stochastic rounding per block; the draw is derived from the vector, so it repeats."""
    blocks = -(-len(vector) // BLOCK)
    padded = np.zeros(blocks * BLOCK, dtype=np.float32)
    padded[: len(vector)] = vector
    table = padded.reshape(blocks, BLOCK)
    scales = np.abs(table).max(axis=1) / np.float32(127.0)  # (blocks,)
    safe = np.where(scales > 0, scales, np.float32(1.0))
    seed = int.from_bytes(hashlib.sha256(_encode_float32(vector)).digest()[:8], "big")
    dither = np.random.default_rng(seed).random(table.shape, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        levels = np.clip(np.floor(table / safe[:, None] + dither), -127, 127)
        quantized = levels.astype(np.int8).reshape(-1)[: len(vector)]
    return scales.astype("<f4").tobytes() + quantized.tobytes()


def _decode_int8(data: bytes, size: int) -> Vector:
    blocks = -(-size // BLOCK)
    scales = np.frombuffer(data, dtype="<f4", count=blocks)
    levels = np.frombuffer(data, dtype=np.int8, count=size, offset=4 * blocks)
    with np.errstate(over="ignore", invalid="ignore"):  # a peer's scales; admission looks on
        return levels.astype(np.float32) * np.repeat(scales, BLOCK)[:size].astype(np.float32)


_CODECS = {
    entry.name: entry
    for entry in (
        Codec(
            name="float32",
            encode=_encode_float32,
            decode=_decode_float32,
            size_bytes=lambda size: 4 * size,
            relative_error=0.0,
        ),
        Codec(
            name="bf16",
            encode=_encode_bf16,
            decode=_decode_bf16,
            size_bytes=lambda size: 2 * size,
            relative_error=2.0**-8,
        ),
        Codec(
            name="int8",
            encode=_encode_int8,
            decode=_decode_int8,
            size_bytes=lambda size: size + 4 * -(-size // BLOCK),
            # each coordinate moves by less than one level, max|v|/127 of its block
            relative_error=BLOCK**0.5 / 127.0,
        ),
    )
}
