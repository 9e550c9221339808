"""A picture in strips of rows, so that no more of it is held than is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SIDEWAYS = frozenset((5, 6, 7, 8))
"""Turns that swap height and width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strips:
    """A picture's rows from the top, once: ``strips`` are uint8 (rows, width[, 3]).

    ``turn`` is Exif's orientation, 1 to 8, which is not undone yet.
    """

    height: int
    width: int
    colours: bool
    strips: Iterator[np.ndarray]
    turn: int = 1

    def whole(self) -> np.ndarray:
        """Return the picture as uint8 (height, width[, 3]), not upright yet."""
        shape = (self.height, self.width, 3) if self.colours else (self.height, self.width)
        pixels, row = np.empty(shape, dtype=np.uint8), 0
        for strip in self.strips:
            pixels[row : row + len(strip)] = strip
            row += len(strip)
        return pixels

    def greys(self) -> Strips:
        """Return the same picture without its colours."""
        if not self.colours:
            return self
        return Strips(
            height=self.height,
            width=self.width,
            colours=False,
            strips=map(_luma, self.strips),
            turn=self.turn,
        )


def strips_of(pixels: np.ndarray, rows: int = 64) -> Strips:
    """Return uint8 (rows, columns) or (rows, columns, 3) in strips of so many rows."""
    height, width = pixels.shape[:2]
    strips = (pixels[row : row + rows] for row in range(0, height, rows))
    return Strips(height=height, width=width, colours=pixels.ndim == 3, strips=strips)


def _luma(strip: np.ndarray) -> np.ndarray:
    """Return the greys of colours: ITU-R 601-2 luma, as Pillow rounds it."""
    red, green, blue = (strip[..., band].astype(np.uint32) for band in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Return pixels as they were seen; ``turn`` is Exif's orientation, 1 to 8."""
    if turn in SIDEWAYS:
        pixels = np.swapaxes(pixels, 0, 1)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
