"""Noise from a device's generator: keyed by the stream alone, normal, for large vectors only."""

import numpy as np
import torch
from scipy.stats import kstest

from collegium.privacy.device_noise import LARGE, device_normals, draws_on_device, normals
from collegium.privacy.noise import NoiseStream, SeededNoise, SystemNoise

CPU = torch.device("cpu")


def stream(seed: int = 0) -> NoiseStream:
    return SeededNoise(seed).stream(site="a", round=1, step=0)


def test_small_vectors_and_processors_keep_the_stream() -> None:
    np.testing.assert_array_equal(normals(stream(), 100, CPU), stream().normal(100))
    assert not draws_on_device(LARGE, CPU)
    assert not draws_on_device(LARGE - 1, torch.device("cuda"))
    assert draws_on_device(LARGE, torch.device("cuda"))


def test_it_is_normal_and_the_streams_own() -> None:
    drawn = device_normals(stream(), 20_000, CPU)
    assert kstest(drawn, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(drawn, device_normals(stream(), 20_000, CPU))
    other = device_normals(stream(1), 20_000, CPU)
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 5 / 20_000**0.5


def test_a_global_seed_neither_repeats_nor_sees_it() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        real = SystemNoise().stream(site="a", round=1, step=0)
        found.append(device_normals(real, 20_000, CPU))
    assert abs(np.corrcoef(*found)[0, 1]) < 5 / 20_000**0.5
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    device_normals(stream(), 100, CPU)
    assert torch.equal(torch.rand(3), untouched)
