"""All records of one file before they are split, and the split that each record decides alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..privacy.fingerprint import record_digests
from .site_data import Labels, Records, SiteData

_DOMAIN = b"collegium/split1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Raw values (n, ...), class indices (n,), and (n,) texts where records name a patient."""

    x: Records
    y: Labels
    units: NDArray[Any] | None = None

    def __repr__(self) -> str:
        return "Table(records not shown)"


def split(table: Table, *, asset: str, test_share: float) -> SiteData:
    """Return the table as training and test part, in the table's order within each.

    A hash keyed with the asset's name decides: of a record's own content, or of its unit's name
    where it has one. So neither the order of the rows nor any other record has a say, and all
    records of one patient are in one part.
    """
    key = hashlib.blake2b(asset.encode(), digest_size=32, person=_DOMAIN).digest()
    if table.units is None:
        digests = record_digests(table.x, table.y, key)
    else:
        digests = [_digest(str(unit), key) for unit in table.units]
    places = np.array([int.from_bytes(digest[:8], "big") / 2.0**64 for digest in digests])
    test = places < test_share
    train = ~test
    return SiteData(
        asset=asset,
        train_x=table.x[train],
        train_y=table.y[train],
        test_x=table.x[test],
        test_y=table.y[test],
        train_units=None if table.units is None else table.units[train],
        test_units=None if table.units is None else table.units[test],
    )


def _digest(unit: str, key: bytes) -> bytes:
    return hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), key=key, digest_size=32).digest()
