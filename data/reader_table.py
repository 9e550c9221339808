"""All records of one file before they are split, and the split that each record decides alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from ..privacy.fingerprint import record_digests
from .growing import chunks_of, take
from .problems import row_words
from .site_data import Identities, Labels, Records, SiteData

_DOMAIN = b"collegium/split1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Raw values (n, ...), labels (n, ...), and (n,) texts where records name a patient.

    What a reader returns, also one of another package; the forms are those of ``site_data``.
    ``rows`` (n,) are the records' row numbers as people count, where the file has rows. ``ids``
    (n, 16) say what each record is (``data.identity``), ``left_out`` (k, 16) what those are that
    the file holds beside them; without ``ids`` the encoded record stands for itself.
    """

    x: Records
    y: Labels
    units: NDArray[Any] | None = None
    rows: NDArray[np.int64] | None = None
    ids: Identities | None = None
    left_out: Identities | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return "Table(records not shown)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A file that says itself which records train, test and (perhaps) calibrate."""

    train: Table
    test: Table
    calibration: Table | None = None

    def __repr__(self) -> str:
        return "Parts(records not shown)"


def split(
    table: Table,
    *,
    asset: str,
    test_share: float,
    test_rows: Sequence[int] = (),
    held_out: float = 0.0,
    seed: int | None = None,
) -> SiteData:
    """Return the table as training, test and calibration part, in its order within each.

    ``test_rows`` are the row numbers of the test part, where the site's people name them.

    A hash keyed with the asset's name (and ``seed``, where there is one) decides: of what the
    record is, or of its unit's name where it has one. So neither the order of the rows, nor any
    other record, nor the plan has a say, and all records of one patient are in one part.
    ``held_out`` is the share of the other than test records that calibrate.
    """
    if test_rows:
        test = _named(table, test_rows)
        held = ~test & (_places(table, asset, seed) < held_out) if held_out else np.zeros_like(test)
    else:
        places = _places(table, asset, seed)
        test = places < test_share
        held = ~test & (places < test_share + (1 - test_share) * held_out)
    return joined(
        replace(_chosen(table, ~test & ~held), left_out=table.left_out),
        _chosen(table, test),
        _chosen(table, held) if held_out else None,
        asset=asset,
    )


def _named(table: Table, rows: Sequence[int]) -> NDArray[np.bool_]:
    """Return (n,) which records are named; raises ``InvalidInput`` for rows that are not there."""
    there = np.zeros(0, dtype=np.int64) if table.rows is None else table.rows
    if lost := sorted(set(rows) - set(there.tolist())):
        raise InvalidInput(
            f"[data] test_rows names {row_words(lost)}, and the site has no such record",
            why="each number is a row of the file, as a spreadsheet counts, that is read",
            cure="correct the numbers, or write test_share in their place",
        )
    return np.isin(there, list(rows))


def divided(
    parts: Parts, *, asset: str, held_out: float = 0.0, seed: int | None = None
) -> SiteData:
    """Return the parts as the file gives them; without a calibration part, ``held_out`` is one."""
    if parts.calibration is not None or not held_out:
        return joined(parts.train, parts.test, parts.calibration, asset=asset)
    held = _places(parts.train, asset, seed) < held_out
    train = replace(_chosen(parts.train, ~held), left_out=parts.train.left_out)
    return joined(train, parts.test, _chosen(parts.train, held), asset=asset)


def joined(train: Table, test: Table, calibration: Table | None, *, asset: str) -> SiteData:
    """Return three tables as the records of one site; they have identities if all of them do."""
    tables = [train, test] if calibration is None else [train, test, calibration]
    known = all(table.ids is not None for table in tables)
    others = [table.left_out for table in tables if table.left_out is not None]
    return SiteData(
        asset=asset,
        train_x=train.x,
        train_y=train.y,
        test_x=test.x,
        test_y=test.y,
        train_units=train.units,
        test_units=test.units,
        calibration_x=None if calibration is None else calibration.x,
        calibration_y=None if calibration is None else calibration.y,
        calibration_units=None if calibration is None else calibration.units,
        train_ids=train.ids if known else None,
        test_ids=test.ids if known else None,
        calibration_ids=None if calibration is None or not known else calibration.ids,
        other_ids=np.concatenate(others) if known and others else None,
    )


def _chosen(table: Table, chosen: NDArray[np.bool_]) -> Table:
    return Table(
        x=take(table.x, chosen),
        y=take(table.y, chosen),
        units=None if table.units is None else table.units[chosen],
        ids=None if table.ids is None else table.ids[chosen],
    )


def _places(table: Table, asset: str, seed: int | None) -> NDArray[np.float64]:
    """Return (n,) numbers in [0, 1), each from its own record (or unit) and the key alone."""
    name = asset if seed is None else f"{asset}\0{seed}"
    key = hashlib.blake2b(name.encode(), digest_size=32, person=_DOMAIN).digest()
    digests: Iterable[bytes]
    if table.units is not None:
        digests = (_digest(str(unit), key) for unit in table.units)
    elif table.ids is not None:
        ids = (each.tobytes() for each in table.ids)
        digests = (hashlib.blake2b(each, key=key, digest_size=32).digest() for each in ids)
    elif table.x.dtype.kind in "OU":
        digests = (_digest(str(text), key) for text in table.x)
    else:
        digests = (
            digest
            for part in chunks_of(table.x)
            for digest in record_digests(table.x[part], table.y[part], key)
        )
    places = (int.from_bytes(digest[:8], "big") / 2.0**64 for digest in digests)
    return np.fromiter(places, dtype=np.float64, count=len(table.x))


def _digest(text: str, key: bytes) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=32).digest()
