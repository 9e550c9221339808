"""Where each trainable tensor lies in the one flat vector that travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .digest import digest_of

Vector = NDArray[np.float32]
"""(d,) float32: all trainable tensors, flattened in layout order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Names, shapes and offsets (in coordinates) of the trainable tensors."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> Self:
        """Return the layout that lays tensors one after the other, in the mapping's order."""
        offsets: list[int] = []
        position = 0
        for shape in shapes.values():
            offsets.append(position)
            position += prod(shape)
        return cls(
            names=tuple(shapes),
            shapes=tuple(tuple(shape) for shape in shapes.values()),
            offsets=tuple(offsets),
        )

    @property
    def size(self) -> int:
        """Return d, the number of coordinates."""
        return self.offsets[-1] + prod(self.shapes[-1]) if self.shapes else 0

    @property
    def digest(self) -> str:
        """Return the SHA-256 that names this layout in every message."""
        return digest_of("collegium/layout/1", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for files and digests."""
        return {
            "names": list(self.names),
            "shapes": [list(shape) for shape in self.shapes],
            "offsets": list(self.offsets),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the layout that ``to_dict`` wrote."""
        return cls(
            names=tuple(values["names"]),
            shapes=tuple(tuple(shape) for shape in values["shapes"]),
            offsets=tuple(values["offsets"]),
        )

    def split(self, vector: Vector) -> dict[str, Vector]:
        """Return each tensor as a view of ``vector`` (d,) in its own shape."""
        return {
            name: vector[start : start + prod(shape)].reshape(shape)
            for name, shape, start in zip(self.names, self.shapes, self.offsets, strict=True)
        }
