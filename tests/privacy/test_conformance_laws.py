"""Sums of small integers: every law against plain enumeration."""

from collections.abc import Iterable
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from collegium.privacy import conformance_laws
from collegium.privacy.conformance_laws import Law, deviation, spread_p, total_of


def chances(law: Law) -> dict[int, float]:
    """The law as a dictionary, without what is nearly impossible."""
    found = {law.low + k: float(mass) for k, mass in enumerate(law.mass)}
    return {value: mass for value, mass in found.items() if mass > 1e-15}


def enumerated(laws: Iterable[dict[int, float]]) -> dict[int, float]:
    """The sum of independent variables, outcome by outcome."""
    found: dict[int, float] = {}
    for outcome in product(*(law.items() for law in laws)):
        value = sum(value for value, _ in outcome)
        found[value] = found.get(value, 0.0) + float(np.prod([mass for _, mass in outcome]))
    return found


def test_a_sum_of_binomials_is_a_binomial() -> None:
    law = Law.binomial(40, 0.3).times(25)
    for value in (250, 300, 301, 360):
        expected = binom.pmf(value, 1000, 0.3)
        assert law.mass[value - law.low] == pytest.approx(expected, rel=1e-9)
    assert law.lost < 1e-20
    assert law.mass.sum() == pytest.approx(1.0, abs=1e-12)


def test_two_sided_is_twice_the_smaller_tail() -> None:
    law = Law.binomial(1000, 0.3)
    for value in (240, 290, 300, 345):
        below, above = binom.cdf(value, 1000, 0.3), binom.sf(value - 1, 1000, 0.3)
        assert law.two_sided(value) == pytest.approx(min(1.0, 2 * min(below, above)), rel=1e-9)
    assert law.two_sided(-5) == law.two_sided(2000) == pytest.approx(0.0, abs=1e-20)
    assert Law.binomial(12, 1.0).two_sided(12) == 1.0
    assert Law.binomial(12, 1.0).two_sided(11) == 0.0


def test_a_wide_binomial_keeps_what_matters() -> None:
    law = Law.binomial(10**6, 0.1)
    assert len(law.mass) < 12_000
    assert law.lost < 1e-30
    assert law.two_sided(99_000) == pytest.approx(2 * binom.cdf(99_000, 10**6, 0.1), rel=1e-6)


def test_a_cap_gathers_the_tail() -> None:
    law = Law.binomial(10, 0.5).capped(6)
    assert chances(law)[6] == pytest.approx(binom.sf(5, 10, 0.5))
    assert max(chances(law)) == 6
    assert sum(chances(law).values()) == pytest.approx(1.0)
    assert chances(Law.binomial(10, 0.5).capped(99)) == chances(Law.binomial(10, 0.5))
    assert chances(Law.binomial(4, 1.0).capped(3)) == {3: 1.0}


def test_overlaps_by_enumeration() -> None:
    """All pairs of subsets of sizes 3 and 4 of six units."""
    counts: dict[int, int] = {}
    for one, other in product(combinations(range(6), 3), combinations(range(6), 4)):
        shared = len(set(one) & set(other))
        counts[shared] = counts.get(shared, 0) + 1
    total = comb(6, 3) * comb(6, 4)
    expected = {shared: count / total for shared, count in counts.items()}
    assert chances(Law.overlap(6, 3, 4)) == pytest.approx(expected)
    assert chances(Law.overlap(5, 0, 3)) == {0: 1.0}


def test_sums_of_different_laws_by_enumeration() -> None:
    laws = [Law.overlap(6, 3, 4), Law.overlap(7, 2, 2), Law.binomial(3, 0.2)]
    found = chances(total_of(laws))
    assert found == pytest.approx(enumerated(chances(law) for law in laws))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_spread_by_enumeration(width: int) -> None:
    law, copies = Law.binomial(7, 0.4), 4
    squares: dict[int, float] = {}
    for value, mass in chances(law).items():
        square = int(deviation(np.array([value]), 3, width)[0]) ** 2
        squares[square] = squares.get(square, 0.0) + mass
    found = law.squared_deviation(3, width).times(copies)
    expected = enumerated([squares] * copies)
    assert {k: v for k, v in chances(found).items() if v} == pytest.approx(expected)


def test_a_convolution_by_fft_is_the_direct_one(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = Law.binomial(300, 0.3).times(64)
    monkeypatch.setattr(conformance_laws, "_DIRECT", 1.0)
    fast = Law.binomial(300, 0.3).times(64)
    values = range(5500, 6100)
    one = np.array([direct.mass[v - direct.low] for v in values])
    other = np.array([fast.mass[v - fast.low] for v in values])
    np.testing.assert_allclose(other, one, atol=1e-13)
    assert 0 < fast.lost < 1e-12
    assert fast.two_sided(0) <= 4e-12


def test_deviations_are_cut() -> None:
    found = deviation(np.array([-1000, 99, 100, 101, 104, 5000]), 100, 3)
    assert found.tolist() == [-32, 0, 0, 0, 1, 32]


def test_spread_finds_what_scatters_too_little_and_too_much() -> None:
    law = Law.binomial(60, 0.3)
    honest = np.random.default_rng(0).binomial(60, 0.3, 64)
    assert spread_p(honest, law) > 0.01
    assert spread_p(np.full(64, 18), law) < 1e-27
    assert spread_p(np.repeat([8, 28], 32), law) < 1e-27


def test_p_values_are_never_too_small() -> None:
    """Under the null, P(p <= a) <= a: over 800 honest draws at three levels."""
    rng, law = np.random.default_rng(1), Law.binomial(60, 0.3)
    ps = np.array([spread_p(rng.binomial(60, 0.3, 16), law) for _ in range(800)])
    for level in (0.3, 0.1, 0.02):
        assert (ps <= level).sum() <= binom.ppf(1 - 1e-6, 800, level)
        assert (ps <= level).sum() >= binom.ppf(1e-6, 800, level * 0.7)  # nor far too large
