"""One file's records dealt to the sites of a simulation: whole patients, and no copy of a record.

What belongs together is never torn apart: a patient's records go to one site and into one part
of it, and records that are equal are all trained on at a site or all tested there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.plan import Plan
from ..data.public import PublicSet
from ..data.site_data import SiteData
from ..data.split import holdout
from .records import (
    SITE_TEST_SHARE,
    Indices,
    Records,
    aside_set,
    deal,
    set_aside,
    simulation_of,
    simulation_seed,
)


def dealt(plan: Plan, asset: str, whole: SiteData) -> Records:
    """Return one file's training records as those of all sites, its test part as the global one.

    A unit goes where its first record's label leads it. Raises ``InvalidInput`` as ``deal``.
    """
    rng = np.random.default_rng([0xF11E, simulation_seed(plan)])
    whole, aside = _without_public(plan, asset, whole)
    parts = _parts(plan, asset, whole, rng)
    held = _held_out(plan, whole, rng)
    by_site: dict[str, SiteData] = {}
    for site, part, calibration in zip(plan.sites, parts, held, strict=True):
        train, own_test = _own_test(whole, part, rng)
        by_site[site.name] = SiteData(
            asset=f"{asset}/{site.name}",
            train_x=whole.train_x[train],
            train_y=whole.train_y[train],
            test_x=whole.train_x[own_test],
            test_y=whole.train_y[own_test],
            train_units=_taken(whole.train_units, train),
            test_units=_taken(whole.train_units, own_test),
            calibration_x=_taken(whole.calibration_x, calibration),
            calibration_y=_taken(whole.calibration_y, calibration),
            calibration_units=_taken(whole.calibration_units, calibration),
            train_ids=_taken(whole.train_ids, train),
            test_ids=_taken(whole.train_ids, own_test),
            calibration_ids=_taken(whole.calibration_ids, calibration),
        )
    test = PublicSet(name=f"{asset}/test", origin="public", x=whole.test_x, y=whole.test_y)
    return Records(by_site=by_site, test=test, public=aside)


def _without_public(plan: Plan, asset: str, whole: SiteData) -> tuple[SiteData, PublicSet | None]:
    """Return the file without the share that no site gets, and that share as a public set.

    Patients, or else records of one content, are set aside whole. A public record of which a copy
    stays behind, with another patient or in the parts for calibration and test, is nobody's.
    """
    if not simulation_of(plan).public_share:
        return whole, None
    units = whole.train_units
    everyone = np.arange(len(whole.train_y))
    groups = _groups(_contents(whole.train_x, everyone) if units is None else _places(units))
    first = np.array([rows[0] for rows in groups], dtype=np.intp)
    kept, aside = set_aside(plan, np.arange(len(groups)), whole.train_y[first])
    rows = _rows(groups, kept)
    rest = replace(
        whole,
        train_x=whole.train_x[rows],
        train_y=whole.train_y[rows],
        train_units=_taken(units, rows),
        train_ids=_taken(whole.train_ids, rows),
    )
    return rest, aside_set(asset, _without_copies(whole.train_x[_rows(groups, aside)], rest))


def _without_copies(x: NDArray[Any], rest: SiteData) -> NDArray[Any]:
    """Return those of the records (n, ...) that equal none of the rest, whatever its part."""
    parts = [part for part in (rest.train_x, rest.calibration_x, rest.test_x) if part is not None]
    known = {_content(record) for part in parts for record in part}
    return x[np.array([_content(record) not in known for record in x], dtype=bool)]


def _parts(plan: Plan, asset: str, whole: SiteData, rng: np.random.Generator) -> Sequence[Indices]:
    """Return each site's records; a site's public size counts what the plan protects."""
    groups = _groups(_owners(whole.train_units, len(whole.train_y)))
    by_record = plan.privacy.unit == "record"
    sizes = np.array([len(rows) if by_record else 1 for rows in groups], dtype=np.intp)
    first = np.array([rows[0] for rows in groups], dtype=np.intp)
    chosen = deal(plan, whole.train_y[first], rng, source=asset, sizes=sizes)
    return [_rows(groups, part) for part in chosen]


def _held_out(plan: Plan, whole: SiteData, rng: np.random.Generator) -> list[Indices]:
    """Return each site's part of the records that are held out for calibration, at random."""
    count = 0 if whole.calibration_y is None else len(whole.calibration_y)
    groups = _groups(_owners(whole.calibration_units, count))
    sizes = np.cumsum([site.public_records for site in plan.sites])
    cuts = (sizes[:-1] / sizes[-1] * len(groups)).astype(int)
    order = rng.permutation(len(groups))
    if whole.calibration_units is None:
        return np.split(order, cuts)
    return [_rows(groups, part) for part in np.split(order, cuts)]


def _own_test(whole: SiteData, part: Indices, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Return which of a site's records (rows of the file) train, and which are its own test.

    Patients, or else records of one content, are held out whole; the share is one of them.
    """
    units = _taken(whole.train_units, part)
    groups = _groups(_contents(whole.train_x, part) if units is None else _places(units))
    labels = whole.train_y[part[np.array([rows[0] for rows in groups], dtype=np.intp)]]
    if labels.ndim == 1 and labels.dtype.kind == "i":
        train, test = holdout(labels, SITE_TEST_SHARE, rng)
    else:
        order = rng.permutation(len(labels))
        test, train = np.split(order, [int(len(labels) * SITE_TEST_SHARE)])
    return part[_rows(groups, train)], part[_rows(groups, test)]


def _owners(units: NDArray[Any] | None, count: int) -> Indices:
    """Return the place (n,) of each record's unit, in the order in which they first come."""
    return np.arange(count) if units is None else _places(units)


def _places(names: Sequence[Any] | NDArray[Any]) -> Indices:
    known: dict[Any, int] = {}
    places = [known.setdefault(name, len(known)) for name in names]
    return np.array(places, dtype=np.intp)


def _contents(x: NDArray[Any], part: Indices) -> Indices:
    """Return the place (n,) of each record's content, in the order in which they first come."""
    return _places([_content(x[row]) for row in part])


def _content(record: NDArray[Any]) -> bytes:
    return hashlib.blake2b(record.tobytes(), digest_size=16).digest()


def _groups(places: Indices) -> list[Indices]:
    """Return the rows of each group, rising; groups are in the order of their places."""
    order = np.argsort(places, kind="stable")
    return np.split(order, np.cumsum(np.bincount(places))[:-1]) if len(places) else []


def _rows(groups: Sequence[Indices], chosen: Indices) -> Indices:
    """Return the rows of the chosen groups, rising."""
    return np.sort(np.concatenate([np.zeros(0, dtype=np.intp), *(groups[each] for each in chosen)]))


def _taken(values: NDArray[Any] | None, chosen: Indices) -> NDArray[Any] | None:
    return None if values is None else values[chosen]
