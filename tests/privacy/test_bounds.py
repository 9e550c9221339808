"""The norm bound on an honest update: exact tails, and the tight case without noise."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, chi

from collegium.core.mechanism import MechanismSpec
from collegium.privacy.bounds import TAIL, update_norm_bound

Make = Callable[..., MechanismSpec]


@pytest.mark.parametrize("n", [1, 7, 40, 300, 10_000])
@pytest.mark.parametrize("q", [0.001, 0.05, 0.3, 0.5, 0.99, 1.0])
def test_batch_part_holds_up_to_its_tail(make_spec: Make, n: int, q: float) -> None:
    """Without noise the bound is the batch's: P(B > bound) <= exp(-t), by the exact tail."""
    spec = make_spec(noise_multiplier=0.0, sampling_rate=q, normaliser=1.0)
    batch = update_norm_bound(spec, size=9, public_records=n, learning_rate=1.0)
    assert binom.logsf(np.floor(batch), n, q) <= -TAIL or batch >= n


@pytest.mark.parametrize("size", [1, 2, 8, 650, 100_000])
def test_noise_part_holds_up_to_its_tail(make_spec: Make, size: int) -> None:
    """P(|N(0, I_d)| > sqrt(d) + sqrt(2t)) <= exp(-t), by the exact chi tail."""
    spec = make_spec(noise_multiplier=1.0, sampling_rate=1e-12, normaliser=1.0)
    bound = update_norm_bound(spec, size=size, public_records=1, learning_rate=1.0)
    batch = update_norm_bound(
        make_spec(noise_multiplier=0.0, sampling_rate=1e-12, normaliser=1.0),
        size=size, public_records=1, learning_rate=1.0,
    )  # fmt: skip
    assert chi.logsf(bound - batch, size) <= -TAIL


def test_scales_by_hand(make_spec: Make) -> None:
    """q = 1: B = n = 10. (10 + 2 (3 + sqrt(80))) * C 0.5 * lr 3 * 4 steps / 10."""
    spec = make_spec(
        clip_norm=0.5, noise_multiplier=2.0, sampling_rate=1.0, normaliser=10.0, steps=4
    )
    bound = update_norm_bound(spec, size=9, public_records=10, learning_rate=3.0)
    assert bound == pytest.approx((10 + 2 * (3 + 80**0.5)) * 0.5 * 3 * 4 / 10, rel=1e-4)


@pytest.mark.parametrize("size", [1, 3, 650])
@pytest.mark.parametrize("n", [3, 10, 77])
def test_the_largest_honest_update_is_within_the_bound(make_spec: Make, size: int, n: int) -> None:
    """No noise, every record in, all gradients equal and clipped: float32 must not tip it over."""
    rng = np.random.default_rng(size * n)
    for clip in rng.uniform(0.1, 3, 50):
        spec = make_spec(
            clip_norm=float(clip), noise_multiplier=0.0, sampling_rate=1.0, normaliser=float(n)
        )
        direction = rng.normal(size=size)
        step = n * clip * direction / np.linalg.norm(direction) / n
        update = step.astype(np.float32)
        bound = update_norm_bound(spec, size=size, public_records=n, learning_rate=1.0)
        assert np.linalg.norm(update.astype(np.float64)) <= bound
