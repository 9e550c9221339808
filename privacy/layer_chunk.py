"""All trained layers' gradients for the units of one micro-batch: bounds, sums, single units."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .layer_gradients import ROUNDING, PerUnitGradient
from .layer_recording import Use

ILL = 2e-5  # rounding of a unit's float32 sum, relative to its norm, above which it is done alone
FAR = 1e20  # times C: beyond, a clip factor leaves the range in which float32 is exact


class ChunkGradients:
    """The gradients of a chunk's units over all trained parameters; every number is finite.

    A record with a number that is not finite is zeroed, so that it leaves no trace; then a unit
    whose float32 gradient still overflows.
    """

    def __init__(self, uses: Sequence[Use], keep: Tensor, per_unit: int) -> None:
        """``uses`` hold ``per_unit`` rows for each unit; ``keep`` (rows,) says which may count."""
        self._per_unit = per_unit
        self._form(uses)
        if not (keep.all() and torch.isfinite(self._squared.sum())):
            for use in uses:
                keep = keep & use.finite()
            uses = [use.masked(keep) for use in uses]
            self._form(uses)
            fine = torch.isfinite(self._squared)
            if not fine.all():
                self._form([use.masked(fine.repeat_interleave(per_unit)) for use in uses])

    def _form(self, uses: Sequence[Use]) -> None:
        self._parts: list[tuple[slice, PerUnitGradient]] = []
        squares: list[Tensor] = []
        masses: list[Tensor] = []
        for use in uses:
            found = use.layer.gradients(use.a, use.g, self._per_unit)
            for name, place in use.layer.places.items():
                self._parts.append((place, found[name]))
                size = found[name].size()
                squares.append(size.squared)
                masses.append(size.mass)
        self._squared = torch.stack(squares).sum(0)
        self._mass = torch.linalg.vector_norm(torch.stack(masses), dim=0)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return (units,) upper bounds of the norms, rounding of the sum included, and whether
        that rounding is too much of it."""
        norms, rounding = self._squared.sqrt(), ROUNDING * self._mass
        return norms + rounding, rounding > ILL * norms

    def add(self, total: Tensor, factors: Tensor, *, fresh: bool) -> None:
        """Add sum_u ``factors[u]`` g_u to ``total`` (d,) float64; ``fresh``: it is unset."""
        for place, part in self._parts:
            part.add_weighted(total[place], factors, fresh=fresh)

    def add_clipped(self, total: Tensor, clip_norm: float, *, fresh: bool) -> None:
        """Add the clipped gradients to ``total`` (d,); what cancels too far, one by one."""
        bound, ill = self.bounds()
        factors = (clip_norm / bound).clamp_max(1.0)
        apart = (bound > clip_norm) & (ill | (bound > FAR * clip_norm))
        alone: list[int] = apart.nonzero().flatten().tolist()
        if alone:
            factors = torch.where(apart, torch.zeros_like(factors), factors)
        self.add(total, factors, fresh=fresh)
        for unit in alone:
            add_vector(total, self.alone(unit, len(total)), clip_norm)

    def norms(self, coordinates: int) -> Tensor:
        """Return (units,) bounds of the norms, those that cancel too far formed alone."""
        bound, ill = self.bounds()
        for unit in ill.nonzero().flatten().tolist():
            bound[unit] = self.alone(unit, coordinates).norm()
        return bound

    def alone(self, unit: int, coordinates: int) -> Tensor:
        """Return one unit's gradient (d,), formed in float64."""
        device = self._squared.device
        whole = torch.zeros(coordinates, dtype=torch.float64, device=device)
        for place, part in self._parts:
            whole[place] = part.alone(unit)
        return whole


def add_vector(total: Tensor, vector: Tensor, clip_norm: float, *, fresh: bool = False) -> None:
    """Add ``vector`` (d,) clipped to ``clip_norm``; nothing when it is not finite."""
    if fresh:
        total.zero_()
    norm = float(vector.norm())
    if norm < float("inf"):  # False for NaN
        total += vector * (min(1.0, clip_norm / norm) if norm > 0 else 1.0)


@contextmanager
def full_precision() -> Generator[None]:
    """Multiply float32 matrices as such: no TF32, no bfloat16; the settings come back after."""
    kinds = torch.backends
    places = (
        kinds.cuda.matmul,
        kinds.cudnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
        kinds.mkldnn.matmul,  # pyright: ignore[reportAttributeAccessIssue]
        kinds.mkldnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
    )
    before = [place.fp32_precision for place in places]
    changed = [
        (place, value)
        for place, value in zip(places, before, strict=True)
        if value not in ("none", "ieee")
    ]
    try:
        for place, _ in changed:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, value in changed:
            place.fp32_precision = value
