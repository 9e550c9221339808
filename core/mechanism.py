"""The one frozen object from which sampler, clipping, noise, normaliser and accounting derive."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from .digest import digest_of

Unit = Literal["record", "patient"]
Relation = Literal["add-or-remove-one", "replace-one", "replace-special"]
Sampler = Literal["poisson", "truncated-poisson"]
SAMPLERS = ("poisson", "truncated-poisson")

CLIP_SLACK = 1e-5
"""Relative rounding by which one unit's clipped contribution may exceed C; noise covers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismSpec:
    """The subsampled Gaussian mechanism of one site and one round (DP-SGD, Abadi et al. 2016).

    Every field is a constant of the plan; none is a function of a site's records.
    A unit is one record, or one patient with all of its records. ``clip_norm`` is the L2 norm C
    of a unit's contribution; ``public_records`` bounds the number of units at the site; the
    noisy sum is divided by ``normaliser`` (units); ``steps`` is the number of noisy steps per
    round; ``batch_cap`` is the most units of one step, 0 for plain Poisson sampling.
    """

    unit: Unit
    relation: Relation
    clip_norm: float
    noise_multiplier: float
    sampler: Sampler
    sampling_rate: float
    public_records: int
    normaliser: float
    steps: int
    batch_cap: int
    delta: float
    trainable_digest: str

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what can be neither executed nor accounted."""
        rules = (
            (self.sampler in SAMPLERS, "the sampler is not a Poisson sampler"),
            ((self.sampler == "truncated-poisson") == (self.batch_cap > 0), "cap and sampler"),
            (0 < self.clip_norm < math.inf, "the clip norm is not positive"),
            (0 <= self.noise_multiplier < math.inf, "the noise multiplier is negative"),
            (0 < self.sampling_rate <= 1, "the sampling rate is not in (0, 1]"),
            (0 < self.normaliser < math.inf, "the normaliser is not positive"),
            (self.steps >= 1 and self.public_records >= 1, "no step or no unit"),
            (0 < self.delta < 1, "delta is not in (0, 1)"),
        )
        for holds, what in rules:
            if not holds:
                raise ValueError(f"no mechanism: {what}")

    @property
    def noise_std(self) -> float:
        """Return the standard deviation per coordinate of the noise on a step's clipped sum.

        It is calibrated to C (1 + CLIP_SLACK), so that rounding in the clipping is charged.
        """
        return self.noise_multiplier * self.clip_norm * (1 + CLIP_SLACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an asset may spend in all, in its own unit and neighbouring relation."""

    epsilon: float
    delta: float
    unit: Unit
    relation: Relation


def spec_digest(spec: MechanismSpec) -> str:
    """Return the SHA-256 that names this mechanism in updates and ledgers."""
    return digest_of("collegium/mechanism/1", asdict(spec))
