"""A site's records: raw values, labels, and which of them train or test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteData:
    """One site's private records, split into a training and a test part.

    ``train_x`` (n, ...) and ``test_x`` (m, ...) raw values; ``train_y`` (n,) and ``test_y``
    (m,) class indices; ``train_units`` (n,) and ``test_units`` (m,) name each record's patient,
    None where every record stands for itself. Nothing here is ever summarised for anyone
    outside the site.
    """

    asset: str
    train_x: Records
    train_y: Labels
    test_x: Records
    test_y: Labels
    train_units: NDArray[Any] | None = None
    test_units: NDArray[Any] | None = None

    def __repr__(self) -> str:
        return f"SiteData(asset={self.asset!r}, records not shown)"
