"""Which units take part in a step: Poisson sampling, plain or cut at a cap; nothing else.

A shuffled loader has no proven amplification (notes: 28.4 instead of 4.5), so there is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec
from .noise import NoiseStream

Indices = NDArray[np.intp]


def sample(spec: MechanismSpec, stream: NoiseStream, count: int) -> Indices:
    """Return the indices of the sampled units as the mechanism says: the only way to a batch."""
    batch = poisson_sample(stream, count, spec.sampling_rate)
    return truncate(stream, batch, spec.batch_cap) if spec.batch_cap else batch


def poisson_sample(stream: NoiseStream, count: int, rate: float) -> Indices:
    """Return the indices of the sampled units: each of ``count`` independently with ``rate``.

    The batch may be empty; that is a step of pure noise. (Abadi et al. 2016, section 3.1)
    """
    return np.flatnonzero(stream.uniform(count) <= rate)


def truncate(stream: NoiseStream, batch: Indices, cap: int) -> Indices:
    """Return ``batch``, or a uniform subset of ``cap`` of it, in order.

    Truncated Poisson sampling: the batch never exceeds a fixed shape, and the accountant
    charges for the cut (dp-accounting's ``TruncatedSubsampledGaussianDpEvent``).
    """
    if len(batch) <= cap:
        return batch
    ranks = np.argsort(stream.uniform(len(batch)), kind="stable")
    return np.sort(batch[ranks[:cap]])
