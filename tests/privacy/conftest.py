"""One mechanism and its variations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from collegium.core.mechanism import MechanismSpec

SPEC = MechanismSpec(
    unit="record", relation="add-or-remove-one", clip_norm=1.0, noise_multiplier=2.0,
    sampler="poisson", sampling_rate=0.1, public_records=100, normaliser=10.0, steps=1,
    batch_cap=0, delta=1e-5, trainable_digest="sha256:t",
)  # fmt: skip


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., MechanismSpec]:
    """The builder of mechanisms."""

    def make(**changes: Any) -> MechanismSpec:
        return replace(SPEC, **changes)

    return make
