"""Findings on the columns of a table: how a site's file lies against the plan's schema."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..core.fields import shown
from ..core.plan_model import ModelRef
from ..core.site_data_section import DataSection
from .findings import Finding, percent
from .site_data import SiteData

MOST_ROWS = 200_000
"""Rows that are looked at, evenly spread; a finding is about shares."""
_OUTSIDE = 0.01
_MISSING = 0.3
_DISTINCT = 8

Values = NDArray[np.float64]


def column_findings(data: SiteData, model: ModelRef, section: DataSection) -> Iterator[Finding]:
    """Yield, per column: outside the bounds, zeros, constant, missing, not listed, swapped."""
    x, bounds = data.train_x, model.bounds
    if not bounds and not model.categories:
        return
    if not len(x) or x.ndim != 2 or x.shape[1] != len(bounds) + len(model.categories):
        return
    rows = np.asarray(x[:: max(1, -(-len(x) // MOST_ROWS))], dtype=np.float64)
    columns = {name: rows[:, place] for place, name in enumerate(bounds)}
    for name, values in columns.items():
        known = values[~np.isnan(values)]
        yield from _missing(name, 1 - len(known) / len(values))
        if len(known):
            yield from _outside(name, known, bounds[name])
            yield from _constant(name, known)
            if name not in section.zero_is_missing:
                yield from _zeros(name, known, bounds[name])
    yield from _swapped(columns, model)
    for place, name in enumerate(model.categories, start=len(bounds)):
        yield from _categories(name, rows[:, place])


def _missing(name: str, share: float) -> Iterator[Finding]:
    if share > _MISSING:
        yield Finding(
            kind="drift",
            where=f"column {shown(name)}",
            what="every value is missing" if share == 1 else f"{percent(share)} are missing",
            cure="agree on a plan without it, or find out why it was not measured",
        )


def _outside(name: str, known: Values, bounds: tuple[float, float]) -> Iterator[Finding]:
    share = float(((known < bounds[0]) | (known > bounds[1])).mean())
    if share > _OUTSIDE:
        yield Finding(
            kind="drift",
            where=f"column {shown(name)}",
            what=f"outside the plan's bounds, and so clipped to them: {name} ({percent(share)})",
            cure="check the unit of measurement and the column's place, or agree on other bounds",
        )


def _constant(name: str, known: Values) -> Iterator[Finding]:
    if len(known) > 1 and (known == known[0]).all():
        yield Finding(
            kind="drift",
            where=f"column {shown(name)}",
            what="all its values are alike",
            cure="is it measured here? Otherwise it may stand for something missing",
        )


def _zeros(name: str, known: Values, bounds: tuple[float, float]) -> Iterator[Finding]:
    """A 0 far from its neighbours, or outside the bounds, is often a value not measured."""
    zeros = float((known == 0).mean())
    others = known[known != 0]
    if not zeros:
        return
    out = not bounds[0] <= 0 <= bounds[1]
    if not out and len(np.unique(others)) >= _DISTINCT:
        low, high = np.quantile(others, [0.25, 0.75])
        out = float(np.abs(others).min()) > max(float(high - low) / 2, 1e-12)
    if out:
        yield Finding(
            kind="drift",
            where=f"column {shown(name)}",
            what=f"{percent(zeros)} are exactly 0, far from all other values",
            cure=f'if 0 means "not measured", write [data] zero_is_missing = ["{name}"]',
        )


def _swapped(columns: dict[str, Values], model: ModelRef) -> Iterator[Finding]:
    """Two columns that each fit the other's bounds and not their own."""
    bounds = model.bounds
    wrong = [
        name
        for name, values in columns.items()
        if np.isfinite(values).any() and _inside(values, bounds[name]) < 0.5
    ]
    for one, other in combinations(wrong, 2):
        crossed = (
            _inside(columns[one], bounds[other]) > 0.9
            and _inside(columns[other], bounds[one]) > 0.9
        )
        if crossed:
            yield Finding(
                kind="drift",
                where=f"columns {shown(one)} and {shown(other)}",
                what="each lies within the other's bounds and outside its own",
                cure="compare the order of [data] columns (or the header) with the file",
            )


def _inside(values: Values, bounds: tuple[float, float]) -> float:
    known = values[~np.isnan(values)]
    return float(((known >= bounds[0]) & (known <= bounds[1])).mean()) if len(known) else 0.0


def _categories(name: str, codes: Values) -> Iterator[Finding]:
    unlisted = float((codes < 0).mean())
    if unlisted:
        yield Finding(
            kind="drift",
            where=f"column {shown(name)}",
            what=f"{percent(unlisted)} are none of the plan's categories (or missing)",
            cure="they count as none of them; compare the spelling, or agree on a longer list",
        )
    yield from _constant(name, codes)
