"""The one frozen object from which sampler, clipping, noise, normaliser and accounting derive."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from .digest import digest_of

Unit = Literal["record", "patient"]
Relation = Literal["add-or-remove-one", "replace-one", "replace-special"]
Sampler = Literal["poisson", "truncated-poisson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismSpec:
    """The subsampled Gaussian mechanism of one site and one round (DP-SGD, Abadi et al. 2016).

    Every field is a constant of the plan; none is a function of a site's records.
    ``clip_norm`` is an L2 norm C; the noise added to the clipped sum has standard deviation
    ``noise_multiplier * clip_norm`` per coordinate; the noisy sum is divided by ``normaliser``
    (records); ``steps`` is the number of noisy steps per round; ``batch_cap`` is 0 for plain
    Poisson sampling.
    """

    unit: Unit
    relation: Relation
    clip_norm: float
    noise_multiplier: float
    sampler: Sampler
    sampling_rate: float
    normaliser: float
    steps: int
    batch_cap: int
    delta: float
    trainable_digest: str


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
