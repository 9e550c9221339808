"""The mechanism's name: every field counts, and it never changes between versions."""

from dataclasses import fields, replace

import pytest

from collegium.core.mechanism import MechanismSpec, spec_digest

SPEC = MechanismSpec(
    unit="record", relation="add-or-remove-one", clip_norm=1.0, noise_multiplier=3.0,
    sampler="poisson", sampling_rate=0.3, public_records=300, normaliser=90.0, steps=1, batch_cap=0, delta=1e-4,
    trainable_digest="sha256:t",
)  # fmt: skip
OTHER = {
    "unit": "patient", "relation": "replace-one", "clip_norm": 2.0, "noise_multiplier": 3.1,
    "sampler": "truncated-poisson", "sampling_rate": 0.31, "public_records": 301, "normaliser": 91.0, "steps": 2,
    "batch_cap": 7, "delta": 1e-5, "trainable_digest": "sha256:u",
}  # fmt: skip


def test_known_answer() -> None:
    assert spec_digest(SPEC) == KNOWN


def test_every_field_counts() -> None:
    assert set(OTHER) == {field.name for field in fields(SPEC)}
    digests = {spec_digest(replace(SPEC, **{name: value})) for name, value in OTHER.items()}
    assert len(digests | {spec_digest(SPEC)}) == len(OTHER) + 1


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        SPEC.noise_multiplier = 0.0  # type: ignore[misc]


KNOWN = "sha256:652f7c9423bc66e2312017c21839f8d29b3d17f0361a8c06a798b3cda7878b26"
