"""One private step: sample units, clip, sum, noise, divide by a public constant."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec
from .clipping import Clipper
from .device_noise import normals
from .noise import Floats, NoiseStream
from .sampling import sample
from .units import Units


class StepObserver(Protocol):
    """Sees, inside the site, what one step drew: the audit's evidence. It never leaves."""

    def observe(
        self,
        spec: MechanismSpec,
        *,
        step: int,
        units: int,
        batch: NDArray[np.intp],
        clean: Floats,
        noisy: Floats,
    ) -> None:
        """Take in one step: the site's number of units, the indices of those sampled, and the
        clipped sum (d,) before and after the noise."""
        ...


def private_gradient(
    spec: MechanismSpec,
    clipper: Clipper,
    x: NDArray[np.generic],
    y: NDArray[np.int64],
    stream: NoiseStream,
    *,
    units: Units | None = None,
    step: int = 0,
    observer: StepObserver | None = None,
    device: torch.device | None = None,
) -> Floats:
    """Return the (d,) noisy mean gradient of one step (Abadi et al. 2016, Algorithm 1).

    ``x`` (n, ...) raw values and ``y`` (n,) labels are the site's training records; ``units``
    says which of them belong to one patient (None: each record is a unit). Sampling and noise
    come from ``stream``; every constant comes from ``spec``. The divisor is the plan's
    normaliser, not the batch's size, which is private. ``device`` is where the model is.
    """
    device = device or torch.device("cpu")
    units = units or Units.singles(len(x))
    batch = sample(spec, stream, len(units))
    rows, owners = units.rows_of(batch)
    clean = clipper.clipped_sum(
        torch.from_numpy(np.asarray(x[rows], dtype=np.float32)).to(device),
        torch.from_numpy(y[rows]).to(device),
        spec.clip_norm,
        units=owners,
    )
    noisy = clean + normals(stream, len(clean), device) * spec.noise_std
    if observer is not None:
        observer.observe(spec, step=step, units=len(units), batch=batch, clean=clean, noisy=noisy)
    return noisy / spec.normaliser
