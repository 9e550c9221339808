"""The lines of a PNG, a few at a time: unpacked, and the bytes before filtering found again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

AT_ONCE = 1 << 21
"""Bytes of lines that are unpacked together: what a picture takes does not grow with it."""
PART = 1 << 16
MOST_LINES = 1 << 10
SLOW_BYTES = 160
"""Per diagonal: from here on a whole diagonal is found sooner than its single bytes."""


def plain_lines(
    packed: Sequence[memoryview], height: int, size: int, step: int
) -> Iterator[np.ndarray]:
    """Yield the lines of a picture as uint8 (lines, ``size``), ``height`` of them in all.

    ``step`` bytes lie between two pixels. Raises ``ValueError`` for damage.
    """
    above = np.zeros(size, dtype=np.uint8)
    for block in _unpacked(packed, height, size + 1):
        plain = _unfiltered(block[:, 0], block[:, 1:], above, step)
        above = plain[-1].copy()
        yield plain


def _unpacked(packed: Sequence[memoryview], height: int, size: int) -> Iterator[np.ndarray]:
    inflate = zlib.decompressobj()
    parts = (chunk[at : at + PART] for chunk in packed for at in range(0, len(chunk), PART))
    given: bytes | memoryview = b""
    lines = max(1, min(MOST_LINES, AT_ONCE // size))
    for first in range(0, height, lines):
        wanted = min(lines, height - first) * size
        found = bytearray()
        while len(found) < wanted:
            try:
                found += inflate.decompress(given, wanted - len(found))
            except zlib.error:
                raise ValueError("it is damaged") from None
            given = inflate.unconsumed_tail
            if len(found) < wanted and not given:
                given = next(parts, b"")
                if not given:
                    raise ValueError("it is damaged")
        yield np.frombuffer(found, np.uint8).reshape(-1, size)


def _unfiltered(filters: np.ndarray, coded: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Return the bytes of each line before filtering; ``above`` is the line before the first."""
    if filters.max() > 4:
        raise ValueError("it is damaged")
    slow = np.count_nonzero(filters > 2) * coded.shape[1]
    if slow > SLOW_BYTES * (coded.shape[1] // step + len(coded)):
        return _by_diagonals(filters, coded, above, step)
    plain = np.zeros_like(coded)
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


def _by_diagonals(
    filters: np.ndarray, coded: np.ndarray, above: np.ndarray, step: int
) -> np.ndarray:
    """Return the same, one diagonal of pixels after the other.

    A pixel needs those at its left, above it, and between the two: all lie on the two diagonals
    before its own. Diagonal d holds pixel d - r of line r; line 0 is the one above the first.
    """
    lines, width = coded.shape[0], coded.shape[1] // step
    skewed = np.zeros((lines + width + 1, lines + 1, step), dtype=np.int16)
    skewed[:width, 0] = above.reshape(width, step)
    for line in range(1, lines + 1):
        skewed[line : line + width, line] = coded[line - 1].reshape(width, step)
    kinds = filters[:, None]
    averages, paeths = kinds == 3, kinds == 4
    by_left, by_up = (kinds == 1).astype(np.int16), (kinds == 2).astype(np.int16)
    corner, before = np.zeros_like(skewed[0]), skewed[0]
    for diagonal in range(1, lines + width):
        # outside of the picture left and corner are 0, as the first pixel of a line needs it
        first, last = max(1, diagonal - width + 1), min(lines, diagonal) + 1
        here = slice(first, last)
        left, up, slope = before[here], before[first - 1 : last - 1], corner[first - 1 : last - 1]
        rise, run = up - slope, left - slope
        to_left, to_up, to_slope = np.abs(rise), np.abs(run), np.abs(rise + run)
        nearest = np.where(to_up <= to_slope, up, slope)
        nearest = np.where((to_left <= to_up) & (to_left <= to_slope), left, nearest)
        rows = slice(first - 1, last - 1)
        guess = by_left[rows] * left + by_up[rows] * up
        guess += averages[rows] * ((left + up) >> 1) + paeths[rows] * nearest
        skewed[diagonal, here] = (skewed[diagonal, here] + guess) & 255
        corner, before = before, skewed[diagonal]
    plain = np.empty_like(coded)
    for line in range(1, lines + 1):
        plain[line - 1] = skewed[line : line + width, line].reshape(-1)
    return plain
