"""The mechanism's name: every field counts, and it never changes between versions."""

from dataclasses import fields, replace
from typing import Any

import pytest

from collegium.core.mechanism import MechanismSpec, spec_digest

SPEC = MechanismSpec(
    unit="record", relation="add-or-remove-one", clip_norm=1.0, noise_multiplier=3.0,
    sampler="poisson", sampling_rate=0.3, public_records=300, normaliser=90.0, steps=1,
    batch_cap=0, delta=1e-4, trainable_digest="sha256:t",
)  # fmt: skip
OTHER = {
    "unit": "patient", "relation": "replace-one", "clip_norm": 2.0, "noise_multiplier": 3.1,
    "sampling_rate": 0.31, "public_records": 301,
    "normaliser": 91.0, "steps": 2, "delta": 1e-5, "trainable_digest": "sha256:u",
}  # fmt: skip


def test_known_answer() -> None:
    assert spec_digest(SPEC) == KNOWN


def test_every_field_counts() -> None:
    capped = [
        replace(SPEC, sampler="truncated-poisson", batch_cap=cap) for cap in (7, 8)
    ]  # a cap and its sampler go together
    assert {*OTHER, "sampler", "batch_cap"} == {field.name for field in fields(SPEC)}
    digests = {spec_digest(replace(SPEC, **{name: value})) for name, value in OTHER.items()}
    digests |= {spec_digest(spec) for spec in (SPEC, *capped)}
    assert len(digests) == len(OTHER) + 3


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        SPEC.noise_multiplier = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"sampler": "shuffled"},
        {"batch_cap": 7},
        {"sampler": "truncated-poisson"},
        {"clip_norm": 0.0},
        {"clip_norm": float("inf")},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("nan")},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.1},
        {"normaliser": 0.0},
        {"steps": 0},
        {"public_records": 0},
        {"delta": 0.0},
        *({name: float("nan")} for name in ("clip_norm", "sampling_rate", "normaliser", "delta")),
    ],
)
def test_what_cannot_be_accounted_is_no_mechanism(change: dict[str, Any]) -> None:
    """A shuffled loader, say, has no proven amplification: it cannot even be written down."""
    with pytest.raises(ValueError, match="no mechanism"):
        replace(SPEC, **change)


def test_noise_covers_the_slack_of_the_clipping() -> None:
    assert SPEC.noise_std == pytest.approx(3.0 * 1.00001, rel=1e-12)


KNOWN = "sha256:2497fdb66cde1560903c99a2639afbc84fa0553208eec80b65a3bd908e8cdb30"
