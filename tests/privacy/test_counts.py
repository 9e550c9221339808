"""Noised counts of a test part: worked by hand, bounded per unit, noised as accounted."""

from collections.abc import Callable

import numpy as np
import pytest

from collegium.core.mechanism import MechanismSpec
from collegium.privacy.counts import noised_counts
from collegium.privacy.noise import SeededNoise
from collegium.privacy.units import Units

Make = Callable[..., MechanismSpec]


def counts(spec: MechanismSpec, right: list[bool], units: Units, seed: int = 0) -> list[float]:
    stream = SeededNoise(seed).stream(site="a", round=0, step=1)
    return list(noised_counts(spec, np.array(right, dtype=bool), units, stream).values())


@pytest.fixture
def spec(make_spec: Make) -> MechanismSpec:
    return make_spec(clip_norm=2**0.5, sampling_rate=1.0, normaliser=1.0, noise_multiplier=3.0)


@pytest.fixture
def exact(make_spec: Make) -> MechanismSpec:
    return make_spec(clip_norm=2**0.5, sampling_rate=1.0, normaliser=1.0, noise_multiplier=0.0)


def test_by_hand(exact: MechanismSpec) -> None:
    assert counts(exact, [True, False, True], Units.singles(3)) == [2.0, 3.0]
    patients = Units.of(np.array(["p", "p", "q"]))  # p is half right, q wholly
    assert counts(exact, [True, False, True], patients) == [1.5, 2.0]
    assert counts(exact, [], Units.singles(0)) == [0.0, 0.0]


def test_one_unit_moves_them_by_at_most_the_clip_norm(exact: MechanismSpec) -> None:
    """A patient with all the records but one counts as one."""
    owners = np.array([0] * 50 + [1])
    whole = counts(exact, [True] * 51, Units.of(owners))
    less = counts(exact, [True], Units.of(owners[50:]))
    assert np.linalg.norm(np.subtract(whole, less)) <= exact.clip_norm * (1 + 1e-12)


def test_the_noise_is_the_mechanisms(spec: MechanismSpec) -> None:
    drawn = np.array([counts(spec, [True] * 9, Units.singles(9), seed) for seed in range(4000)])
    residual = (drawn - 9.0) / spec.noise_std
    assert abs(residual.mean()) < 5 / 8000**0.5
    assert abs(residual.var() - 1) < 5 * (2 / 8000) ** 0.5
