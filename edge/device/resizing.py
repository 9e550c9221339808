"""Pictures to another size where there is no Pillow: its bilinear filter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .strips import Strips, strips_of

BITS = 22
"""Of the fixed-point weights."""
Share = tuple[int, np.ndarray]
"""Of one new place: the first old place, and the weights from there on."""


def resized_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return uint8 pixels (rows, columns[, 3]) as (height, width[, 3]); see ``resized``."""
    return resized(strips_of(pixels), height, width)


def resized(picture: Strips, height: int, width: int) -> np.ndarray:
    """Return a picture as uint8 (height, width[, 3]), of which one strip at a time is held.

    When shrinking, the filter averages over the area: ``Image.resize(..., BILINEAR)`` of Pillow,
    columns first. Pillow 13 sometimes takes rows first, and then a pixel may differ by 1.
    """
    found = np.empty((height, width, 3) if picture.colours else (height, width), dtype=np.uint8)
    across, down = _weights(picture.width, width), _weights(picture.height, height)
    begun: dict[int, np.ndarray] = {}
    place, top = 0, 0
    for strip in picture.strips:
        part = _columns(strip, across) if picture.width != width else strip
        end = top + len(part)
        for row in range(place, height):
            first, weights = down[row]
            if first >= end:
                break
            start, stop = max(first, top), min(first + len(weights), end)
            total = _sums(weights[start - first : stop - first], part[start - top : stop - top])
            begun[row] = begun.pop(row, 0) + total
            if stop == first + len(weights):
                found[row] = _rounded(begun.pop(row))
                place = row + 1
        top = end
    return found


def _columns(strip: np.ndarray, across: Sequence[Share]) -> np.ndarray:
    found = np.empty((len(across), len(strip), *strip.shape[2:]), dtype=np.uint8)
    turned = np.swapaxes(strip, 0, 1)
    for place, (first, weights) in enumerate(across):
        found[place] = _rounded(_sums(weights, turned[first : first + len(weights)]))
    return np.swapaxes(found, 0, 1)


def _sums(weights: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return the weighted sum along the first axis: whole numbers below 2^53, so exact."""
    return np.tensordot(weights, part.astype(np.float64), axes=1)


def _rounded(total: np.ndarray) -> np.ndarray:
    return np.clip(np.floor((total + (1 << (BITS - 1))) / (1 << BITS)), 0, 255).astype(np.uint8)


def _weights(old: int, new: int) -> list[Share]:
    """Return the share of the old places in each of the new ones, as fixed-point numbers."""
    scale, found = old / new, list[Share]()
    reach = max(scale, 1.0)
    for place in range(new):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - reach + 0.5))
        last = min(old, int(centre + reach + 0.5))
        shares = [
            max(0.0, 1.0 - abs((at - centre + 0.5) * (1.0 / reach))) for at in range(first, last)
        ]
        total = sum(shares)
        weights = [int(0.5 + share / total * (1 << BITS)) for share in shares]
        found.append((first, np.array(weights, dtype=np.float64)))
    return found
