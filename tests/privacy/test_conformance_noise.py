"""Tests of one site's noise: null laws by hand, and what evidence does not hold."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, chi2, norm

from collegium.privacy import conformance_noise as noise
from collegium.privacy.conformance import Finding, judge
from collegium.privacy.conformance_records import EDGES, DrawnStep

SIZES = (5, 0, 95)


def step_of(z: np.ndarray, *, number: int = 0, sizes: tuple[int, ...] = SIZES) -> DrawnStep:
    """Evidence of one step's noise z (d,)."""
    parts = np.split(z, np.cumsum(sizes)[:-1])
    return DrawnStep(
        step=number,
        size=len(z),
        squares=float(z @ z),
        sketch=z.astype(np.float32),
        units=1000,
        batch=0,
        included=np.zeros(0, dtype=bool),
        tensor_sizes=tuple(len(part) for part in parts if len(part)),
        tensor_squares=tuple(float(part @ part) for part in parts if len(part)),
        bins=tuple(np.histogram(np.abs(z), [0, *EDGES, np.inf])[0].tolist()),
        negative=int((z < 0).sum()),
        zeros=int((z == 0).sum()),
    )


def by_test(steps: list[DrawnStep], multiplier: float = 1.0) -> dict[str, Finding]:
    """Judged findings of one site."""
    found = noise.noise_findings("a", [(multiplier, step) for step in steps])
    return {finding.test: finding for finding in judge(found)}


@pytest.fixture
def z() -> np.ndarray:
    """Noise of four steps."""
    return np.random.default_rng(0).standard_normal((4, 100))


def test_the_chances_of_the_bins_are_those_of_a_normal() -> None:
    ends = np.array([0, *EDGES, np.inf])
    expected = 2 * (norm.cdf(ends[1:]) - norm.cdf(ends[:-1]))
    np.testing.assert_allclose(noise._CHANCES, expected, rtol=1e-9)
    assert sum(noise._CHANCES) == pytest.approx(1.0, abs=1e-15)


def test_every_tensor_and_step_has_its_own_p_value(z: np.ndarray) -> None:
    steps = [step_of(row, number=number) for number, row in enumerate(z)]
    found = by_test(steps)[noise.NOISE_TENSORS]
    sums = [(row[:5] @ row[:5], row[5:] @ row[5:]) for row in z]
    table = np.array([*sums, np.sum(sums, axis=0)])
    sizes = np.array([*[(5, 95)] * 4, (20, 380)])
    ps = 2 * np.minimum(chi2.cdf(table, sizes), chi2.sf(table, sizes))
    assert found.count == ps.size == 10
    assert found.p == pytest.approx(ps.min())


def test_a_bin_is_binomial(z: np.ndarray) -> None:
    steps = [step_of(row, number=number) for number, row in enumerate(z)]
    found = by_test(steps)[noise.NOISE_LAW]
    counts = np.append(np.histogram(np.abs(z), [0, *EDGES, np.inf])[0], (z < 0).sum())
    chances = np.array([*noise._CHANCES, 0.5])
    ps = 2 * np.minimum(binom.cdf(counts, 400, chances), binom.sf(counts - 1, 400, chances))
    assert found.count == len(EDGES) + 2
    assert found.p == pytest.approx(min(1.0, ps.min()))


def test_the_expected_number_of_zeros_grows_with_rounding(z: np.ndarray) -> None:
    """One zero is a gap, unless the noise is so small that rounding swallows it."""
    z[2, 7] = 0.0
    steps = [step_of(row, number=number) for number, row in enumerate(z)]
    assert by_test(steps)[noise.NOISE_GAPS].outcome == "failed"
    p = by_test(steps)[noise.NOISE_GAPS].p
    assert p == pytest.approx(400 * 1001 * 2.0**-52, rel=1e-6)
    assert by_test(steps, multiplier=1e-8)[noise.NOISE_GAPS].outcome == "passed"
    none = by_test([steps[0]])[noise.NOISE_GAPS]
    assert (none.p, none.outcome) == (1.0, "passed")


def test_layouts_are_not_mixed(z: np.ndarray) -> None:
    steps = [step_of(z[0]), step_of(z[1], number=1, sizes=(40, 60)), step_of(z[2], sizes=(100,))]
    assert by_test(steps)[noise.NOISE_TENSORS].count == 4 + 4 + 2


def test_what_evidence_does_not_hold_is_not_exercised(z: np.ndarray) -> None:
    old = replace(step_of(z[0]), tensor_sizes=(), tensor_squares=(), bins=())
    found = by_test([old])
    new = (noise.NOISE_TENSORS, noise.NOISE_LAW, noise.NOISE_GAPS)
    assert {found[test].outcome for test in new} == {"not exercised"}
    assert found[noise.NOISE].outcome == "passed"
    assert [f.outcome for f in by_test([]).values()] == ["not exercised"]


@pytest.mark.slow
def test_honest_p_values_are_not_too_small() -> None:
    """400 honest sites: the smallest p of each test, times its count, is rarely below .01."""
    rng, low = np.random.default_rng(1), dict[str, int]()
    for _ in range(400):
        rows = rng.standard_normal((6, 100))
        for finding in by_test([step_of(row, number=n) for n, row in enumerate(rows)]).values():
            if finding.p is not None and finding.p * finding.count < 0.01:
                low[finding.test] = low.get(finding.test, 0) + 1
    assert all(count <= 14 for count in low.values()), low  # Bin(400, .01) >= 15: 2e-5
