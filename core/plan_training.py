"""How a site trains beyond the plain private step: augmentation, and a head that starts first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .fields import about


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What makes private training work better at the same epsilon."""

    augment: Literal["none", "shift", "flip", "flip-shift"] = field(
        default="none",
        metadata=about("How images are varied: shifted by a few pixels, mirrored, or both"),
    )
    augmentations: int = field(
        default=1,
        metadata=about(
            "Varied copies of each record in a step; their mean gradient is clipped, so that "
            "they cost no privacy",
            low=1,
            high=64,
        ),
    )
    warm_head: int = field(
        default=0,
        metadata=about(
            "Rounds at the beginning in which the head alone moves", low=0, high=100_000
        ),
    )
