"""A data set that may be shown to everyone, with the origin that makes it so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.digest import sha256_hex
from ..privacy.origin import Origin, require_releasable


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSet:
    """Raw inputs and (where known) labels whose origin is public, synthetic or released.

    ``x`` (n, ...) raw values in the reader's dtype; ``y`` (n,) int64 class indices or None.
    Raises ``Refused`` when the origin is private.
    """

    name: str
    origin: Origin
    x: NDArray[np.generic]
    y: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        require_releasable(self.origin, f"the public set '{self.name}'")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def data_free(self) -> bool:
        """Return whether these records, or those they are a part of, were made up without data."""
        return self.origin == "synthetic" and self.name.startswith("synthetic:")

    @property
    def digest(self) -> str:
        """Return the SHA-256 over dtype, shape and bytes of inputs and labels."""
        parts = [f"{self.x.dtype.str}{self.x.shape}".encode(), np.ascontiguousarray(self.x).data]
        if self.y is not None:
            parts += [
                f"{self.y.dtype.str}{self.y.shape}".encode(),
                np.ascontiguousarray(self.y).data,
            ]
        return sha256_hex(*(bytes(part) for part in parts))
