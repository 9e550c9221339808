"""Digit skeletons as clouds of points: hand-drawn pen strokes, and fonts thinned to one pixel."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import NotAvailable

Points = NDArray[np.float32]
Stroke = tuple[tuple[float, float], ...]

POINTS = 144  # per skeleton: less than one pixel apart on the 32 x 32 bitmap, even for an 8
RENDER = 48  # height in pixels of the font bitmaps that are thinned

# Faces of matplotlib's bundled fonts that hold the ten digits (DejaVu and STIX licences, and the
# Computer Modern fonts); those of HELD_OUT_FONTS never reach the open model's training.
TRAIN_FONTS = (
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif",
    "STIXGeneral",
    "STIXGeneralBolIta",
    "cmb10",
    "cmr10",
    "cmti10",
    "cmmi10",
)
HELD_OUT_FONTS = ("DejaVuSerif-Italic", "DejaVuSansMono", "STIXGeneralItalic", "cmss10", "cmtt10")

# How people write the digits, drawn by the authors: (x, y) control points in a box about .65
# wide and 1 high, y down; a point given twice is a corner; several tuples are several strokes.
PEN: dict[int, tuple[tuple[Stroke, ...], ...]] = {
    0: (
        (((0.38, 0), (0.1, 0.2), (0, 0.5), (0.1, 0.82), (0.35, 1), (0.6, 0.8), (0.68, 0.48),
          (0.58, 0.15), (0.38, 0)),),
        (((0.55, 0.1), (0.3, 0), (0.05, 0.25), (0, 0.6), (0.2, 0.95), (0.45, 0.97), (0.65, 0.7),
          (0.65, 0.3), (0.45, 0.02), (0.3, 0.08)),),
    ),
    1: (
        (((0.3, 0), (0.3, 0.33), (0.3, 0.66), (0.3, 1)),),
        (((0, 0.3), (0.15, 0.15), (0.3, 0), (0.3, 0), (0.3, 0.5), (0.3, 1)),),
        (((0.05, 0.22), (0.17, 0.12), (0.3, 0), (0.3, 0), (0.3, 0.5), (0.3, 1)),
         ((0.02, 1), (0.3, 1), (0.58, 1))),
        (((0.3, 0), (0.3, 0.5), (0.3, 1)), ((0.05, 1), (0.3, 1), (0.55, 1))),
    ),
    2: (
        (((0, 0.25), (0.12, 0.05), (0.35, 0), (0.6, 0.12), (0.62, 0.32), (0.4, 0.62),
          (0.05, 0.97), (0.05, 0.97), (0.35, 0.95), (0.7, 1)),),
        (((0, 0.2), (0.2, 0.02), (0.45, 0), (0.62, 0.2), (0.5, 0.5), (0.25, 0.8), (0.05, 0.98),
          (0, 0.85), (0.15, 0.8), (0.4, 0.93), (0.72, 0.97)),),
        (((0, 0.15), (0.3, 0), (0.6, 0.1), (0.55, 0.35), (0.3, 0.65), (0, 1), (0, 1), (0.35, 1),
          (0.7, 1)),),
        (((0, 0.2), (0.25, 0), (0.55, 0.15), (0.5, 0.5), (0.3, 0.85), (0.1, 1), (0, 0.85),
          (0.15, 0.72), (0.4, 0.85), (0.7, 1)),),
    ),
    3: (
        (((0.02, 0.15), (0.2, 0), (0.5, 0.03), (0.58, 0.22), (0.45, 0.4), (0.22, 0.47),
          (0.22, 0.47), (0.5, 0.53), (0.63, 0.72), (0.5, 0.95), (0.22, 1), (0, 0.87)),),
        (((0, 0.1), (0.3, 0), (0.55, 0.15), (0.45, 0.4), (0.25, 0.48), (0.5, 0.58), (0.6, 0.8),
          (0.35, 1), (0, 0.92)),),
        (((0, 0.02), (0.3, 0), (0.6, 0), (0.6, 0), (0.4, 0.22), (0.22, 0.4), (0.22, 0.4),
          (0.5, 0.47), (0.62, 0.7), (0.45, 0.95), (0.2, 1), (0, 0.88)),),
    ),
    4: (
        (((0.12, 0), (0.07, 0.25), (0, 0.52), (0, 0.52), (0.35, 0.52), (0.7, 0.5)),
         ((0.52, 0.05), (0.5, 0.5), (0.48, 1))),
        (((0.5, 0), (0.25, 0.32), (0, 0.65), (0, 0.65), (0.35, 0.65), (0.72, 0.63)),
         ((0.5, 0), (0.5, 0.5), (0.5, 1))),
        (((0.05, 0), (0, 0.3), (0.05, 0.5), (0.3, 0.52), (0.55, 0.4), (0.6, 0.05), (0.6, 0.05),
          (0.57, 0.5), (0.55, 1)),),
        (((0.3, 0), (0.15, 0.3), (0, 0.6), (0, 0.6), (0.35, 0.6), (0.7, 0.6)),
         ((0.45, 0.3), (0.43, 0.65), (0.4, 1))),
        (((0.05, 0.02), (0, 0.28), (0.05, 0.45), (0.38, 0.45)), ((0.42, 0), (0.4, 0.5), (0.38, 1))),
    ),
    5: (
        (((0.15, 0.02), (0.12, 0.2), (0.08, 0.42), (0.08, 0.42), (0.35, 0.36), (0.6, 0.55),
          (0.58, 0.82), (0.3, 1), (0, 0.9)), ((0.15, 0.02), (0.4, 0.02), (0.65, 0))),
        (((0.65, 0), (0.4, 0.01), (0.15, 0.03), (0.15, 0.03), (0.1, 0.25), (0.07, 0.42),
          (0.07, 0.42), (0.35, 0.38), (0.6, 0.58), (0.5, 0.9), (0.25, 1), (0, 0.92)),),
        (((0.62, 0.05), (0.35, 0), (0.1, 0.12), (0.1, 0.32), (0.35, 0.45), (0.58, 0.6),
          (0.55, 0.88), (0.28, 1), (0, 0.9)),),
        (((0.12, 0.1), (0.08, 0.25), (0.06, 0.42), (0.06, 0.42), (0.35, 0.4), (0.58, 0.6),
          (0.52, 0.88), (0.28, 1), (0, 0.95)), ((0.25, 0.06), (0.5, 0.03), (0.78, 0))),
    ),
    6: (
        (((0.5, 0), (0.2, 0.2), (0.03, 0.5), (0.03, 0.8), (0.25, 1), (0.52, 0.9), (0.55, 0.65),
          (0.32, 0.52), (0.05, 0.68)),),
        (((0.3, 0), (0.1, 0.35), (0, 0.7), (0.15, 0.97), (0.4, 0.97), (0.55, 0.78), (0.42, 0.58),
          (0.2, 0.6), (0.03, 0.78)),),
        (((0.55, 0.03), (0.3, 0.08), (0.08, 0.35), (0, 0.65), (0.1, 0.92), (0.32, 1),
          (0.5, 0.85), (0.48, 0.65), (0.3, 0.58), (0.1, 0.7), (0.1, 0.9)),),
        (((0.35, 0), (0.12, 0.4), (0.02, 0.75), (0.12, 1), (0.32, 0.95), (0.38, 0.78),
          (0.25, 0.65), (0.05, 0.78)),),
    ),
    7: (
        (((0, 0.05), (0.3, 0.03), (0.62, 0), (0.62, 0), (0.45, 0.35), (0.3, 0.7), (0.22, 1)),),
        (((0, 0.05), (0.3, 0.03), (0.62, 0), (0.62, 0), (0.45, 0.35), (0.3, 0.7), (0.22, 1)),
         ((0.1, 0.5), (0.35, 0.48), (0.6, 0.46))),
        (((0, 0.2), (0.02, 0.03), (0.02, 0.03), (0.3, 0.05), (0.6, 0.02), (0.6, 0.02),
          (0.4, 0.4), (0.28, 1)),),
        (((0, 0.08), (0.2, 0), (0.45, 0.1), (0.65, 0), (0.55, 0.25), (0.35, 0.55), (0.25, 1)),),
    ),
    8: (
        (((0.55, 0.15), (0.3, 0), (0.08, 0.15), (0.15, 0.38), (0.45, 0.58), (0.6, 0.8),
          (0.32, 1), (0.05, 0.82), (0.15, 0.6), (0.45, 0.38), (0.57, 0.17), (0.5, 0.08)),),
        (((0.3, 0), (0.08, 0.1), (0.06, 0.3), (0.3, 0.46), (0.54, 0.3), (0.52, 0.1), (0.3, 0)),
         ((0.3, 0.46), (0.05, 0.6), (0, 0.82), (0.3, 1), (0.6, 0.82), (0.55, 0.6), (0.3, 0.46))),
        (((0.58, 0.05), (0.35, 0), (0.12, 0.15), (0.25, 0.4), (0.5, 0.62), (0.45, 0.92),
          (0.2, 1), (0.05, 0.8), (0.25, 0.52), (0.5, 0.3), (0.58, 0.05)),),
        (((0.5, 0.1), (0.3, 0), (0.15, 0.12), (0.25, 0.4), (0.5, 0.7), (0.4, 0.97), (0.15, 0.97),
          (0.08, 0.75), (0.3, 0.45), (0.5, 0.2), (0.55, 0.02)),),
    ),
    9: (
        (((0.55, 0.2), (0.35, 0), (0.08, 0.12), (0.05, 0.38), (0.28, 0.5), (0.5, 0.38),
          (0.57, 0.15), (0.57, 0.15), (0.55, 0.5), (0.5, 1)),),
        (((0.55, 0.2), (0.35, 0), (0.08, 0.12), (0.05, 0.38), (0.28, 0.5), (0.5, 0.38),
          (0.57, 0.2), (0.55, 0.6), (0.4, 0.92), (0.15, 1), (0, 0.92)),),
        (((0.58, 0.08), (0.3, 0), (0.05, 0.2), (0.1, 0.45), (0.35, 0.48), (0.55, 0.2),
          (0.58, 0.12), (0.56, 0.5), (0.45, 0.85), (0.2, 1)),),
        (((0.4, 0.15), (0.2, 0.02), (0.02, 0.15), (0.1, 0.35), (0.35, 0.28), (0.42, 0.05),
          (0.42, 0.05), (0.38, 0.5), (0.3, 1)),),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """One way to draw a digit: ``points = spline @ control``.

    ``control`` (k, 2) distinct control points, (x, y); ``spline`` (POINTS, k) interpolation
    weights, so that moved control points give a moved, still smooth, stroke.
    """

    digit: int
    control: Points
    spline: Points


@cache
def pen_skeletons() -> tuple[Skeleton, ...]:
    """Return every hand-drawn way to write a digit."""
    return tuple(_pen_skeleton(digit, ways) for digit, all_ways in PEN.items() for ways in all_ways)


@cache
def font_skeletons(names: tuple[str, ...]) -> tuple[Skeleton, ...]:
    """Return the ten digits of each named font, thinned to one-pixel lines.

    Raises ``NotAvailable`` when matplotlib's fonts are not installed.
    """
    digits = tuple((name, digit) for name in names for digit in range(10))
    thin = _thin(np.stack([_render(_font_path(name), digit) for name, digit in digits]))
    return tuple(
        _font_skeleton(digit, bitmap) for (_, digit), bitmap in zip(digits, thin, strict=True)
    )


def _pen_skeleton(digit: int, strokes: tuple[Stroke, ...]) -> Skeleton:
    distinct = sorted({point for stroke in strokes for point in stroke})
    lengths = [float(np.linalg.norm(np.diff(stroke, axis=0), axis=1).sum()) for stroke in strokes]
    counts = np.round(POINTS * np.array(lengths) / sum(lengths)).astype(int)
    counts[-1] = POINTS - counts[:-1].sum()
    rows = [_catmull_rom(s, distinct, int(n)) for s, n in zip(strokes, counts, strict=True)]
    return Skeleton(
        digit=digit,
        control=np.array(distinct, dtype=np.float32),
        spline=np.concatenate(rows).astype(np.float32),
    )


def _catmull_rom(
    stroke: Stroke, distinct: list[tuple[float, float]], count: int
) -> NDArray[np.float64]:
    """Return the (count, k) weights of a Catmull-Rom spline through ``stroke``."""
    where = np.array([distinct.index(point) for point in stroke])
    last = len(stroke) - 1
    at = np.linspace(0, last, count)
    start = np.minimum(at.astype(int), last - 1)
    t = at - start
    weights = np.stack(
        [
            -t / 2 + t**2 - t**3 / 2,
            1 - 2.5 * t**2 + 1.5 * t**3,
            t / 2 + 2 * t**2 - 1.5 * t**3,
            -(t**2) / 2 + t**3 / 2,
        ]
    )
    spline = np.zeros((count, len(distinct)))
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        neighbour = where[np.clip(start + offset, 0, last)]
        np.add.at(spline, (np.arange(count), neighbour), weight)
    return spline


def _font_skeleton(digit: int, bitmap: NDArray[np.bool_]) -> Skeleton:
    rows, columns = np.nonzero(bitmap)
    chosen = np.linspace(0, len(rows) - 1, POINTS).round().astype(int)
    points = np.stack([columns[chosen] - columns.min(), rows[chosen] - rows.min()], axis=1)
    control = (points / max(1, np.ptp(rows))).astype(np.float32)
    return Skeleton(digit=digit, control=control, spline=np.eye(POINTS, dtype=np.float32))


def _font_path(name: str) -> Path:
    """Return the file of a bundled font without importing matplotlib, which is slow."""
    spec = importlib.util.find_spec("matplotlib")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    for place in places:
        path = Path(place) / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
        if path.is_file():
            return path
    raise NotAvailable(
        f"The font '{name}' was not found",
        why="the synthetic glyphs are drawn from the fonts that come with matplotlib",
        cure="pip install matplotlib",
    )


def _render(path: Path, digit: int) -> NDArray[np.bool_]:
    """Return a (RENDER + 4, RENDER + 4) bitmap of one digit, centred."""
    from PIL import Image, ImageDraw, ImageFont  # comes with matplotlib

    side = RENDER + 4
    image = Image.new("L", (side, side), 0)
    ImageDraw.Draw(image).text(
        (side / 2, side / 2), str(digit), fill=255, anchor="mm",
        font=ImageFont.truetype(str(path), RENDER),
    )  # fmt: skip
    return np.asarray(image) > 127


def _thin(bitmaps: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (n, h, w) bitmaps thinned to lines one pixel wide.

    Zhang and Suen, CACM 27(3), 1984; all bitmaps at once.
    """
    image = bitmaps.astype(np.int8)
    while True:
        before = int(image.sum())
        for corner in (0, 1):
            image = np.where(_removable(image, corner), np.int8(0), image)
        if int(image.sum()) == before:
            return image.astype(bool)


def _removable(image: NDArray[np.int8], corner: int) -> NDArray[np.bool_]:
    shifts = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    around = [np.roll(image, (-dy, -dx), axis=(1, 2)) for dy, dx in shifts]  # P2 .. P9
    ring = [*around, around[0]]
    ups = sum((ring[i] == 0) & (ring[i + 1] == 1) for i in range(8))
    total = sum(around)
    p2, _, p4, _, p6, _, p8, _ = around
    if corner == 0:
        sides = (p2 * p4 * p6 == 0) & (p4 * p6 * p8 == 0)
    else:
        sides = (p2 * p4 * p8 == 0) & (p2 * p6 * p8 == 0)
    return (image == 1) & (total >= 2) & (total <= 6) & (ups == 1) & sides
