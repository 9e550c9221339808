"""Whose presence is protected: which records belong to one unit (a record, or a patient)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


class Units:
    """The partition of a site's records into privacy units: sampled and clipped together."""

    def __init__(self, members: Sequence[Rows], *, single: bool) -> None:
        """``members`` holds one unit's record indices each; ``single``: one record per unit."""
        self._members, self._single = members, single

    @classmethod
    def singles(cls, count: int) -> Units:
        """Return ``count`` units of one record each."""
        return cls(np.arange(count)[:, None], single=True)  # pyright: ignore[reportArgumentType]

    @classmethod
    def of(cls, owners: NDArray[np.generic]) -> Units:
        """Return one unit per distinct value of ``owners`` (n,): each record's patient."""
        _, inverse, sizes = np.unique(owners, return_inverse=True, return_counts=True)
        order = np.argsort(inverse, kind="stable")
        members = np.split(order, np.cumsum(sizes)[:-1]) if len(sizes) else []
        return cls(members, single=False)

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self._members)

    def rows_of(self, batch: Rows) -> tuple[Rows, Rows | None]:
        """Return the records of these units and, per record, its unit's place in ``batch``.

        The second is None when every unit is one record.
        """
        if self._single:
            return batch, None
        parts = [self._members[unit] for unit in batch]
        if not parts:
            return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return np.concatenate(parts), owners
