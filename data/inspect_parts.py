"""Findings on the parts: too few records, one record twice, a unit in two parts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.plan import Plan
from .checks import parts_of
from .findings import Finding
from .growing import chunks_of
from .site_data import Records, SiteData

FEW = 50
"""Below it a part says little, and under privacy the noise drowns it."""


def part_findings(data: SiteData, plan: Plan) -> Iterator[Finding]:
    """Yield findings on sizes, repeated records and units."""
    for part, x, _ in parts_of(data):
        if not len(x):
            yield Finding(
                kind="parts",
                where=f"{part} part",
                what="it holds no record",
                cure="look at [data] test_share and test_path, and at the number of records",
            )
        elif len(x) < FEW and part != "calibration":
            yield Finding(
                kind="parts",
                where=f"{part} part",
                what=f"it holds {len(x)} records, fewer than {FEW}",
                cure="results here will vary by chance; under privacy, train with other sites",
            )
    yield from _repeated(data, plan)
    yield from _shared_units(data)


def _repeated(data: SiteData, plan: Plan) -> Iterator[Finding]:
    digests = {part: Counter(_digests(x)) for part, x, _ in parts_of(data)}
    for part, found in digests.items():
        again = sum(count - 1 for count in found.values())
        if again:
            yield Finding(
                kind="parts",
                where=f"{part} part",
                what=f"{again} records repeat another one exactly",
                cure="remove them, unless people may well be alike: a person who is there twice "
                f'is protected half as well with the unit "{plan.privacy.unit}"',
            )
    for (one, first), (other, second) in combinations(digests.items(), 2):
        both = len(first.keys() & second.keys())
        if both:
            yield Finding(
                kind="parts",
                where=f"{one} and {other} part",
                what=f"{both} records are in both",
                cure="remove them from one: results would flatter the model",
            )


def _digests(x: Records) -> Iterator[bytes]:
    """Yield a digest of each record's inputs; two records of one content have one."""
    if x.dtype.kind in "OU":
        for text in x:
            yield hashlib.blake2b(
                str(text).encode("utf-8", "surrogatepass"), digest_size=16
            ).digest()
        return
    for part in chunks_of(x):
        rows: NDArray[Any] = np.ascontiguousarray(x[part])
        for row in rows.reshape(len(rows), -1):
            yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def _shared_units(data: SiteData) -> Iterator[Finding]:
    units = {
        "training": data.train_units,
        "test": data.test_units,
        "calibration": data.calibration_units,
    }
    for (one, first), (other, second) in combinations(units.items(), 2):
        if first is None or second is None:
            continue
        both = len(np.intersect1d(first, second))
        if both:
            yield Finding(
                kind="parts",
                where=f"{one} and {other} part",
                what=f"{both} units have records in both",
                cure="split by unit: results would flatter the model",
            )
