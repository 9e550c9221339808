"""Public synthetic digits: pen strokes and fonts, distorted like handwriting, any number of them.

The grid follows the documented preprocessing of the NIST digits (a 32 x 32 bitmap, the count of
its set pixels in blocks of 4 x 4: 8 x 8 values 0..16). No record of any data set goes in.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from .glyph_skeletons import (
    HELD_OUT_FONTS,
    POINTS,
    TRAIN_FONTS,
    Points,
    Skeleton,
    font_skeletons,
    pen_skeletons,
)
from .public import PublicSet

Source = Literal["mixed", "pen", "fonts", "held-out-fonts"]

BITMAP = 32  # side of the bitmap before block counts, in pixels
FULL = 16.0  # value of a block that is all ink
SOFT = 0.7  # softness of the distance to a stroke, in pixels
CHUNK = 512  # glyphs drawn at once: about 30 MB
PEN_SHARE = 0.8  # of a mixed set


def glyph_set(count: int, *, seed: int, size: int = 8, source: Source = "mixed") -> PublicSet:
    """Draw ``count`` labelled synthetic digits; the same arguments give the same digits.

    ``x`` (count, size, size) float32, whole values 0..16; ``y`` (count,) int64, uniform over the
    digits 0..9. ``source`` says whether skeletons are pen strokes, fonts, or a mixture; the
    held-out fonts are in no other source. Raises ``InvalidInput`` for a size that does not
    divide 32 and for a negative count.
    """
    if count < 0 or size < 1 or BITMAP % size:
        raise InvalidInput(
            f"glyph_set(count={count}, size={size})",
            why=f"the {BITMAP} x {BITMAP} bitmap is cut into size x size equal blocks",
            cure="use a size of 4, 8, 16 or 32 and a count of at least 0",
        )
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    x = np.empty((count, size, size), dtype=np.float32)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        clouds = _place(_distort(_clouds(labels[part], source, rng), rng), rng)
        x[part] = _blocks(_ink(*clouds), size)
    return PublicSet(name=f"collegium:glyphs/{source}/{seed}", origin="synthetic", x=x, y=labels)


def _clouds(labels: NDArray[np.int64], source: Source, rng: Generator) -> Points:
    """Return (n, POINTS, 2) skeleton points, control points moved at random."""
    pens = pen_skeletons() if source in ("mixed", "pen") else ()
    fonts = () if source == "pen" else font_skeletons(_fonts(source))
    from_pen = rng.random(len(labels)) < (PEN_SHARE if fonts else 1.0)
    clouds = np.empty((len(labels), POINTS, 2), dtype=np.float32)
    pick = rng.random(len(labels))
    for family, member in ((pens, from_pen), (fonts, ~from_pen)) if pens else ((fonts, True),):
        for digit in range(10):
            ways = [way for way in family if way.digit == digit]
            choice = (pick * len(ways)).astype(int)
            for index, way in enumerate(ways):
                rows = np.flatnonzero((labels == digit) & member & (choice == index))
                clouds[rows] = _redraw(way, len(rows), rng)
    return clouds


def _fonts(source: Source) -> tuple[str, ...]:
    return HELD_OUT_FONTS if source == "held-out-fonts" else TRAIN_FONTS


def _redraw(way: Skeleton, count: int, rng: Generator) -> Points:
    """Return ``count`` versions of one skeleton, as unsteady as a hand: (count, POINTS, 2)."""
    # Of the height; a pen stroke has few control points, in a font every point is one.
    wobble = 0.05 if len(way.control) < POINTS else 0.004
    moved = way.control + _normal(rng, wobble, count, *way.control.shape)
    points = np.einsum("pk,nkc->npc", way.spline, moved, optimize=True)
    ends = rng.integers(0, POINTS // 16, (count, 2))  # a stroke starts late or stops early
    order = np.clip(np.arange(POINTS), ends[:, :1], POINTS - 1 - ends[:, 1:])
    return np.take_along_axis(points, order[:, :, None], axis=1)


def _distort(points: Points, rng: Generator) -> Points:
    """Return the clouds (n, POINTS, 2) warped smoothly, then slanted and rotated."""
    count = len(points)
    low = points.min(axis=1, keepdims=True)
    unit = (points - low) / np.maximum(np.ptp(points, axis=1, keepdims=True), 0.15)
    bend = np.exp(_normal(rng, 0.22, count, 1, 2))  # larger upper or lower, left or right half
    points = low + np.clip(unit, 0, 1) ** bend * np.ptp(points, axis=1, keepdims=True)
    for frequency in (2.5, 5.0):  # radians per glyph height: elastic waves
        wave = _normal(rng, frequency, count, 2, 2)
        phase = rng.uniform(0, 2 * np.pi, (count, 1, 2)).astype(np.float32)
        points = points + _normal(rng, 0.04, count, 1, 2) * np.sin(points @ wave + phase)
    # radians, and columns per row; people slant to the right
    angle, slant = _normal(rng, 0.12, count), _normal(rng, 0.22, count) - np.float32(0.1)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([cos, sin, -sin + slant * cos, cos + slant * sin], axis=1).reshape(-1, 2, 2)
    return (points @ turn).astype(np.float32)


def _place(points: Points, rng: Generator) -> tuple[Points, Points]:
    """Return the clouds in pixels of the bitmap, height filled, and the pen's radius (n,)."""
    count = len(points)
    radius = rng.uniform(0.9, 3.1, count).astype(np.float32)
    low, high = points.min(axis=1), points.max(axis=1)
    extent = np.maximum(high - low, 0.05)
    room = (BITMAP - 2 * radius - rng.uniform(0, 2.0, count)).astype(np.float32)
    scale = np.repeat((room / extent[:, 1])[:, None], 2, axis=1)
    scale[:, 0] *= np.exp(_normal(rng, 0.22, count))
    scale[:, 0] = np.minimum(scale[:, 0], room / extent[:, 0])
    shift = (rng.uniform(-1, 1, (count, 1, 2)) * (1.5, 0.75)).astype(np.float32)
    centre = (low + high)[:, None, :] / 2
    return (points - centre) * scale[:, None, :] + BITMAP / 2 + shift, radius


def _ink(points: Points, radius: Points) -> Points:
    """Return (n, BITMAP, BITMAP) ink in 0..1: within ``radius`` pixels of a skeleton point.

    The distance is a soft minimum over the points; a Gaussian of it separates into rows and
    columns, so that one matrix product per glyph draws all points at once.
    """
    grid = np.arange(BITMAP, dtype=np.float32) + np.float32(0.5)
    near = np.exp(-((points[:, :, :, None] - grid) ** 2) / np.float32(2 * SOFT**2))
    total = np.swapaxes(near[:, :, 1], 1, 2) @ near[:, :, 0]  # (n, rows, columns)
    squared = np.float32(-2 * SOFT**2) * np.log(total + np.float32(1e-30))
    distance = np.sqrt(np.maximum(squared, 0))
    return np.clip(radius[:, None, None] - distance + np.float32(0.5), 0, 1)


def _blocks(ink: Points, size: int) -> Points:
    """Return the share of ink per block, as whole values 0..16: (n, size, size)."""
    side = BITMAP // size
    return np.rint(FULL * ink.reshape(-1, size, side, size, side).mean(axis=(2, 4)))


def _normal(rng: Generator, scale: float, *shape: int) -> Points:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
