"""Geometry of the report's figures: the template draws it, so that every text is escaped there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A curve in data units: ``points`` (x, y), ``kind`` a CSS class."""

    label: str
    kind: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal line of reference in data units; its label stands ``above`` or below it."""

    label: str
    value: float
    above: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A grid line at ``at`` pixels."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A drawn curve: SVG path data, its last point in pixels, and its label."""

    label: str
    kind: str
    path: str
    end: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A drawn line of reference at ``at`` pixels, its label's baseline at ``label_y``."""

    at: float
    label_y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A chart over rounds, in pixels; the plot area is ``left, top, right, bottom``."""

    title: str
    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    strokes: Sequence[Stroke]
    levels: Sequence[Rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One row of a comparison in data units; ``parts`` are the figures that ``value`` sums up."""

    label: str
    note: str
    kind: str
    value: float
    parts: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One row of a comparison in pixels, with ``label_x`` where its figure stands."""

    label: str
    note: str
    kind: str
    value: float
    x: float
    y: float
    label_x: float
    parts: Sequence[tuple[str, float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A dot plot of a few models on one metric, in pixels."""

    title: str
    metric: str
    width: float
    height: float
    left: float
    right: float
    bottom: float
    ticks: Sequence[Tick]
    marks: Sequence[Mark]


def comparison(title: str, rows: Sequence[Value], *, metric: str, percent: bool) -> Comparison:
    """Return a dot plot of figures in 0..1; the axis starts at the tenth below the lowest."""
    width, left, right, step, top = 720.0, 210.0, 660.0, 46.0, 20.0
    lowest = min(value for row in rows for value in (row.value, *(v for _, v in row.parts)))
    first = max(0, math.floor(lowest * 10 - 0.2))
    share = 10 - first or 1

    def x(value: float) -> float:
        return round(left + (value * 10 - first) / share * (right - left), 1)

    marks = [
        Mark(
            label=row.label,
            note=row.note,
            kind=row.kind,
            value=row.value,
            x=x(row.value),
            y=top + step * number,
            label_x=max(x(value) for value in (row.value, *(v for _, v in row.parts))) + 12,
            parts=[(name, value, x(value)) for name, value in row.parts],
        )
        for number, row in enumerate(rows)
    ]
    every = 2 if share > 6 else 1
    bottom = top + step * (len(rows) - 1) + 26
    ticks = [
        Tick(at=x(tenth / 10), text=f"{tenth * 10}%" if percent else f"{tenth / 10:.1f}")
        for tenth in range(first + (10 - first) % every, 11, every)
    ]
    return Comparison(
        title=title,
        metric=metric,
        width=width,
        height=bottom + 26,
        left=left,
        right=right,
        bottom=bottom,
        ticks=ticks,
        marks=marks,
    )


def curves(
    title: str,
    series: Sequence[Series],
    *,
    levels: Iterable[Level] = (),
    low: float,
    high: float,
    percent: bool,
) -> Curves:
    """Return curves over rounds 1..n between ``low`` and ``high`` in data units."""
    width, height, left, top, right, bottom = 348.0, 216.0, 42.0, 12.0, 336.0, 184.0
    last = max(int(x) for line in series for x, _ in line.points)

    def at(point: Point) -> Point:
        x = left + (point[0] - 1) / max(1, last - 1) * (right - left)
        y = bottom - (point[1] - low) / ((high - low) or 1) * (bottom - top)
        return round(x, 1), round(y, 1)

    strokes = [
        Stroke(
            label=line.label,
            kind=line.kind,
            path="M" + "L".join(f"{x} {y}" for x, y in map(at, line.points)),
            end=at(line.points[-1]),
        )
        for line in series
    ]
    rounds = sorted({1, last} | {n for n in _nice(0, last, 4) if 1 < n < last * 0.94})
    return Curves(
        title=title,
        width=width,
        height=height,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        x_ticks=[Tick(at=at((n, low))[0], text=f"{n:g}") for n in rounds],
        y_ticks=[
            Tick(at=at((1, v))[1], text=f"{v:.0%}" if percent else f"{v:g}")
            for v in _nice(low, high, 5)
        ],
        strokes=strokes,
        levels=[
            Rule(at=y, label_y=y - 6 if level.above else y + 15, text=level.label)
            for level in levels
            if low <= level.value <= high
            for y in (at((1, level.value))[1],)
        ],
    )


def ceiling(value: float) -> float:
    """Return the end of an axis from 0 that holds ``value`` with a little air."""
    ticks = _nice(0, value * 1.08, 4)
    return max(value * 1.08, ticks[-1])


def _nice(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers within [low, high]."""
    span = (high - low) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]
