"""What a site noted of its own steps, as the conformance tests read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec

Key = tuple[str, int, int]
"""Job, round, attempt."""

EDGES = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Where the bins of |z| end; the last one has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnStep:
    """What one private step drew.

    With z = (noisy - clean) / noise_std, which is standard normal in an honest build:
    ``squares`` is the sum of z^2 over all ``size`` coordinates, ``sketch`` some of them;
    ``units`` the site's units, ``batch`` how many of them were sampled, ``included`` whether
    each of the first ones was. Of the trainable tensors, in layout order, ``tensor_sizes`` and
    ``tensor_squares`` are the same sums; ``bins`` counts |z| between the ``EDGES``, ``negative``
    z < 0 and ``zeros`` z = 0. Evidence of an older version has none of these.
    """

    step: int
    size: int
    squares: float
    sketch: NDArray[np.float32]
    units: int
    batch: int
    included: NDArray[np.bool_]
    tensor_sizes: tuple[int, ...] = ()
    tensor_squares: tuple[float, ...] = ()
    bins: tuple[int, ...] = ()
    negative: int = 0
    zeros: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The steps behind one update, by number, and what ties the update to them.

    The update is -``rate`` times the sum of the noisy steps over the normaliser, up to
    ``residual`` (relative to its largest coordinate); None when no update was made.
    ``payloads`` are the SHA-256 of its bytes by codec (empty: evidence of an older version).
    """

    key: Key
    spec: MechanismSpec
    steps: dict[int, DrawnStep] = field(default_factory=dict[int, DrawnStep])
    rate: float | None = None
    residual: float | None = None
    size: int | None = None
    payloads: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def ended(self) -> bool:
        """Return whether an update was made of these steps."""
        return self.rate is not None
