"""One private step: sample units, clip, sum, noise, divide by a public constant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.mechanism import MechanismSpec
from .augment import Augment, branch, owners_of_copies
from .clipping import Clipper
from .device_noise import normals
from .noise import Floats, NoiseStream
from .sampling import sample
from .units import Rows, Units

COPIES = 1024
"""Varied copies that are made at once, unless the site's [hardware] micro_batch says fewer."""


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


@runtime_checkable
class PartObserver(Protocol):
    """A ``StepObserver`` that knows rounds in which a part of the coordinates moves alone."""

    def restrict(self, live: NDArray[np.bool_]) -> None:
        """Take in which coordinates (d,) move until the next ``begin``: the steps that follow
        are of these alone."""
        ...


def private_gradient(
    spec: MechanismSpec,
    clipper: Clipper,
    x: NDArray[np.generic],
    y: NDArray[np.generic],
    stream: NoiseStream,
    *,
    units: Units | None = None,
    step: int = 0,
    observer: StepObserver | None = None,
    device: torch.device | None = None,
    augment: Augment | None = None,
    micro_batch: int = 0,
) -> Floats:
    """Return the (d,) noisy mean gradient of one step (Abadi et al. 2016, Algorithm 1).

    ``x`` (n, ...) raw values and ``y`` (n,) labels are the site's training records; ``units``
    says which of them belong to one patient (None: each record is a unit). Sampling, variants
    of ``augment`` and noise come from ``stream``; every constant comes from ``spec``. The divisor
    is the plan's normaliser, not the batch's size, which is private. ``device`` is where the
    model is. At most ``micro_batch`` records (0: all), copies counted, are on it at once, but
    for a larger unit; their clipped sums add up in float64 to that of the whole batch.
    """
    device = device or torch.device("cpu")
    units = units or Units.singles(len(x))
    variants = None if augment is None else branch(stream)
    batch = sample(spec, stream, len(units))
    rows, owners = units.rows_of(batch)
    draws = None if augment is None or variants is None else augment.draw(variants, rows)

    def clipped(part: slice) -> Floats:
        part_x = torch.from_numpy(np.asarray(x[rows[part]], dtype=np.float32)).to(device)
        part_y = torch.from_numpy(y[rows[part]]).to(device)
        own = None if owners is None else owners[part] - owners[part.start : part.start + 1]
        if augment is not None and draws is not None:
            own = owners_of_copies(own, len(part_x), augment.copies)
            part_x, part_y = augment.vary(part_x, part_y, draws[part])
        return clipper.clipped_sum(part_x, part_y, spec.clip_norm, units=own)

    first, *others = _parts(len(rows), owners, _most(augment, micro_batch))
    clean = clipped(first)
    for part in others:
        clean += clipped(part)
    noisy = clean + normals(stream, len(clean), device) * spec.noise_std
    if observer is not None:
        observer.observe(spec, step=step, units=len(units), batch=batch, clean=clean, noisy=noisy)
    return noisy / spec.normaliser


def _most(augment: Augment | None, micro_batch: int) -> int:
    """Return how many records, each with its copies, are taken at once; 0: all."""
    if augment is None:
        return micro_batch
    return max(1, (micro_batch or COPIES) // augment.copies)


def _parts(count: int, owners: Rows | None, most: int) -> Iterator[slice]:
    """Cut ``count`` records into runs of whole units, of at most ``most`` records each (0: one
    run) but for a larger unit, which is a run of its own."""
    if not most or count <= most:
        yield slice(0, count)
        return
    if owners is None:
        yield from (slice(start, min(start + most, count)) for start in range(0, count, most))
        return
    ends = np.append(np.flatnonzero(np.diff(owners)) + 1, count)  # where each unit ends
    start = 0
    for end, following in zip(ends, np.append(ends[1:], count + most + 1), strict=True):
        if following - start > most:
            yield slice(start, int(end))
            start = int(end)
