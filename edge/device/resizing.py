"""Pictures to another size where there is no Pillow: its bilinear filter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BITS = 22
"""Of the fixed-point weights."""


def resized_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return uint8 pixels (rows, columns[, channels]) as (height, width[, channels]).

    When shrinking, the filter averages over the area: ``Image.resize(..., BILINEAR)`` of Pillow,
    columns first. Pillow 13 sometimes takes rows first, and then a pixel may differ by 1.
    """
    if pixels.shape[1] != width:
        pixels = np.swapaxes(_along_rows(np.swapaxes(pixels, 0, 1), width), 0, 1)
    return _along_rows(pixels, height) if pixels.shape[0] != height else pixels


def _along_rows(pixels: np.ndarray, size: int) -> np.ndarray:
    found = np.empty((size, *pixels.shape[1:]), dtype=np.uint8)
    for place, (first, weights) in enumerate(_weights(pixels.shape[0], size)):
        part = pixels[first : first + len(weights)].astype(np.int64)
        total = np.tensordot(np.array(weights, dtype=np.int64), part, axes=1)
        found[place] = np.clip((total + (1 << (BITS - 1))) >> BITS, 0, 255)
    return found


def _weights(old: int, new: int) -> Iterator[tuple[int, list[int]]]:
    """Yield, per place of the new side, the first old place and the weights from there on."""
    scale = old / new
    reach = max(scale, 1.0)
    for place in range(new):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - reach + 0.5))
        last = min(old, int(centre + reach + 0.5))
        shares = [
            max(0.0, 1.0 - abs((at - centre + 0.5) * (1.0 / reach))) for at in range(first, last)
        ]
        total = sum(shares)
        yield first, [int(0.5 + share / total * (1 << BITS)) for share in shares]
