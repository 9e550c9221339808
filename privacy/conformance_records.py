"""What a site noted of its own steps, as the conformance tests read it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec

Key = tuple[str, int, int]
"""Job, round, attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnStep:
    """What one private step drew.

    With z = (noisy - clean) / noise_std, which is standard normal in an honest build:
    ``squares`` is the sum of z^2 over all ``size`` coordinates, ``sketch`` some of them;
    ``units`` the site's units, ``batch`` how many of them were sampled, ``included`` whether
    each of the first ones was.
    """

    step: int
    size: int
    squares: float
    sketch: NDArray[np.float32]
    units: int
    batch: int
    included: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The steps behind one update, by number, and what ties the update to them.

    The update is -``rate`` times the sum of the noisy steps over the normaliser, up to
    ``residual`` (relative to its largest coordinate); None when no update was made.
    """

    key: Key
    spec: MechanismSpec
    steps: dict[int, DrawnStep] = field(default_factory=dict[int, DrawnStep])
    rate: float | None = None
    residual: float | None = None
    size: int | None = None

    @property
    def ended(self) -> bool:
        """Return whether an update was made of these steps."""
        return self.rate is not None
