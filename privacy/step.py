"""One private step: sample, clip, sum, noise, divide by a public constant."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec
from .clipping import Clipper
from .noise import NoiseStream
from .sampling import poisson_sample


def private_gradient(
    spec: MechanismSpec,
    clipper: Clipper,
    x: NDArray[np.generic],
    y: NDArray[np.int64],
    stream: NoiseStream,
) -> NDArray[np.float64]:
    """Return the (d,) noisy mean gradient of one step (Abadi et al. 2016, Algorithm 1).

    ``x`` (n, ...) raw values and ``y`` (n,) labels are the site's training records. Sampling
    and noise come from ``stream``; every constant comes from ``spec``. The divisor is the
    plan's normaliser, not the batch's size, which is private.
    """
    batch = poisson_sample(stream, len(x), spec.sampling_rate)
    clipped = clipper.clipped_sum(
        torch.from_numpy(np.asarray(x[batch], dtype=np.float32)),
        torch.from_numpy(y[batch]),
        spec.clip_norm,
    )
    noise = stream.normal(len(clipped)) * (spec.noise_multiplier * spec.clip_norm)
    return (clipped + noise) / spec.normaliser
