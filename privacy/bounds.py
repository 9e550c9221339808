"""How large an honest update can be: from clip norm, batch and the noise's tail."""

from __future__ import annotations

import math

from ..core.mechanism import CLIP_SLACK, MechanismSpec

TAIL = 40.0
"""Nats: an honest update exceeds the bound with probability below 2 exp(-40) per step."""

_ROUNDING = 1 + 1e-6  # an update is float32: its norm may round up to above the exact bound


def update_norm_bound(
    spec: MechanismSpec, *, size: int, public_records: int, learning_rate: float
) -> float:
    """Return a bound on the L2 norm of an honest update (d = ``size`` coordinates).

    One step moves by at most learning_rate * (B C + |noise|) / normaliser. The batch size
    B ~ Bin(n, q) obeys Bernstein's inequality; the noise norm is at most
    sigma C (sqrt(d) + sqrt(2 t)) (Laurent & Massart 2000, Lemma 1), both up to exp(-t).
    """
    n, q = public_records, spec.sampling_rate
    batch = min(float(n), n * q + math.sqrt(2 * n * q * (1 - q) * TAIL) + TAIL / 3)
    batch = min(batch, float(spec.batch_cap)) if spec.batch_cap else batch
    noise = spec.noise_multiplier * (math.sqrt(size) + math.sqrt(2 * TAIL))
    step = spec.clip_norm * (1 + CLIP_SLACK) * (batch + noise) / spec.normaliser
    return _ROUNDING * learning_rate * spec.steps * step
