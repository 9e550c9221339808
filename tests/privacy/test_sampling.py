"""Poisson sampling: the law of batch sizes, independence, and that rates mean what they say."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, chisquare, kstest

from collegium.core.mechanism import MechanismSpec
from collegium.privacy.noise import SeededNoise
from collegium.privacy.sampling import poisson_sample, sample

Make = Callable[..., MechanismSpec]
NOISE = SeededNoise(3)


def batches(count: int, rate: float, times: int) -> list[np.ndarray]:
    """Batches of many steps."""
    return [
        poisson_sample(NOISE.stream(site="a", round=number, step=0), count, rate)
        for number in range(times)
    ]


@pytest.mark.parametrize(("count", "rate"), [(20, 0.1), (50, 0.5), (7, 0.9)])
def test_batch_sizes_are_binomial(count: int, rate: float) -> None:
    sizes = np.bincount([len(batch) for batch in batches(count, rate, 4000)], minlength=count + 1)
    expected = 4000 * binom.pmf(np.arange(count + 1), count, rate)
    common = expected > 5
    observed = np.append(sizes[common], sizes[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0.5
    scaled = wanted[keep] * observed[keep].sum() / wanted[keep].sum()
    assert chisquare(observed[keep], scaled).pvalue > 1e-3


def test_inclusions_are_independent_across_records_and_steps() -> None:
    rows = np.zeros((4000, 12))
    for row, batch in zip(rows, batches(12, 0.3, 4000), strict=True):
        row[batch] = 1
    across = np.corrcoef(rows.T)
    np.fill_diagonal(across, 0)
    assert np.abs(across).max() < 4.5 / 4000**0.5
    for record in rows.T:
        assert abs(np.corrcoef(record[:-1], record[1:])[0, 1]) < 4.5 / 4000**0.5
    assert kstest((rows.mean(axis=0) - 0.3) / (0.21 / 4000) ** 0.5, "norm").pvalue > 1e-3


def test_edges() -> None:
    stream = NOISE.stream(site="a", round=1, step=0)
    assert poisson_sample(stream, 100, 1.0).tolist() == list(range(100))
    assert len(poisson_sample(stream, 0, 0.5)) == 0
    assert len(poisson_sample(stream, 100, 1e-300)) == 0


def test_one_record_more_changes_nothing_for_the_others() -> None:
    """Neighbouring data sets: the same draws for the records they share."""
    for number in range(50):
        short, long = (
            poisson_sample(NOISE.stream(site="a", round=number, step=0), count, 0.4)
            for count in (30, 31)
        )
        np.testing.assert_array_equal(long[long < 30], short)


def test_a_batch_never_exceeds_its_cap_and_the_cut_is_fair(make_spec: Make) -> None:
    """Sizes are min(Binomial, cap), and every unit is as likely to stay as another."""
    count, cap, times = 12, 4, 6000
    spec = make_spec(sampler="truncated-poisson", batch_cap=cap, sampling_rate=0.4)
    kept = np.zeros(count)
    sizes = np.zeros(cap + 1)
    for number in range(times):
        batch = sample(spec, NOISE.stream(site="cap", round=number, step=0), count)
        assert batch.tolist() == sorted(set(batch.tolist()))
        kept[batch] += 1
        sizes[len(batch)] += 1
    expected = binom.pmf(np.arange(cap), count, 0.4)
    wanted = times * np.append(expected, 1 - expected.sum())
    assert chisquare(sizes, wanted).pvalue > 1e-3
    assert chisquare(kept).pvalue > 1e-3


def test_without_a_cap_it_is_plain_poisson(make_spec: Make) -> None:
    spec = make_spec(sampling_rate=0.3)
    streams = [NOISE.stream(site="a", round=9, step=0) for _ in range(2)]
    found = sample(spec, streams[0], 100)
    np.testing.assert_array_equal(found, poisson_sample(streams[1], 100, 0.3))
