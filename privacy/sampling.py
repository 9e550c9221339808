"""Which records take part in a step: Poisson sampling, the only kind that is accounted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .noise import NoiseStream


def poisson_sample(stream: NoiseStream, count: int, rate: float) -> NDArray[np.intp]:
    """Return the indices of the sampled records: each of ``count`` independently with ``rate``.

    The batch may be empty; that is a step of pure noise. (Abadi et al. 2016, section 3.1)
    """
    return np.flatnonzero(stream.uniform(count) <= rate)
