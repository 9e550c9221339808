"""A site's records: raw values, labels, and which of them train or test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Records = NDArray[Any]
"""(n, ...) raw values: float32, uint8 pixels, int32 tokens, or texts before they are encoded."""
Identities = NDArray[Any]
"""(n, 16) uint8: what each record is, whatever a plan makes of it (``data.identity``)."""
Labels = NDArray[Any]
"""Class indices (n,) int64; multilabel (n, k) float32 of 0 and 1; regression (n,) float32;
survival (n, 2) float32 of time and 1 where the event was seen; masks (n, height, width) int64."""
IGNORED = 255
"""The value of mask pixels that nobody labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteData:
    """One site's private records, split into a training and a test part.

    ``train_x`` (n, ...) and ``test_x`` (m, ...) raw values; ``train_y`` (n, ...) and ``test_y``
    (m, ...) labels; ``train_units`` (n,) and ``test_units`` (m,) name each record's patient,
    None where every record stands for itself. ``calibration_*``: records that train nothing and
    are held out for threshold and temperature, None where there are none. ``*_ids`` say what
    each record is before the plan's encoding, ``other_ids`` (k, 16) also those that the file holds
    and the plan leaves out; None for records made in memory. Nothing here is ever
    summarised for anyone outside the site but by a mechanism that its ledger has charged.
    """

    asset: str
    train_x: Records
    train_y: Labels
    test_x: Records
    test_y: Labels
    train_units: NDArray[Any] | None = None
    test_units: NDArray[Any] | None = None
    calibration_x: Records | None = None
    calibration_y: Labels | None = None
    calibration_units: NDArray[Any] | None = None
    train_ids: Identities | None = None
    test_ids: Identities | None = None
    calibration_ids: Identities | None = None
    other_ids: Identities | None = None

    def __repr__(self) -> str:
        return f"SiteData(asset={self.asset!r}, records not shown)"
