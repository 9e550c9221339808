"""Common statistics: what a unit adds is bounded, exact sums are the pooled ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collegium.core.plan import Plan
from collegium.core.plan_fitting import Statistics
from collegium.privacy.derive import statistics_mechanism
from collegium.privacy.noise import SeededNoise
from collegium.privacy.survey import (
    LEAST_SCALE,
    LEAST_VARIANCE,
    StatisticsQuery,
    common,
    drifting,
    noised,
    shares_of,
)
from collegium.privacy.units import Units

MakePlan = Callable[..., Plan]


def query(*, missing: bool = False, sizes: tuple[int, ...] = ()) -> StatisticsQuery:
    """Two numbers, in [0, 10] and [-1, 1], then categories."""
    return StatisticsQuery(
        names=("age", "dose"),
        bounds=((0.0, 10.0), (-1.0, 1.0)),
        missing=missing,
        numbers=2,
        sizes=sizes,
        categories=tuple(f"kind-{number}" for number in range(len(sizes))),
    )


def test_one_record_by_hand() -> None:
    row = query(sizes=(3,)).rows(np.array([[7.5, -2.0, 1.0]], dtype=np.float32))[0]
    # 7.5 of [0, 10] is .5, -2 is clipped to -1; squares are summed as 1 - u^2
    assert row.tolist() == [1.0, 0.5, -1.0, 0.75, 0.0, 0.0, 1.0, 0.0]


def test_a_missing_number_adds_nothing_and_is_not_counted() -> None:
    row = query(missing=True).rows(np.array([[np.nan, 0.0]], dtype=np.float32))[0]
    assert row.tolist() == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_a_category_that_is_not_listed_adds_to_none() -> None:
    asked = query(sizes=(2, 2))
    rows = asked.rows(np.array([[5, 0, -1, np.nan], [5, 0, 7, 1]], dtype=np.float32))
    assert rows[:, 5:].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


def test_sizes_and_sensitivity_by_hand() -> None:
    assert (query().size, query().sensitivity) == (5, 3**0.5)
    assert (query(missing=True).size, query(missing=True).sensitivity) == (7, 5**0.5)
    both = query(sizes=(3, 4))
    assert (both.size, both.sensitivity) == (12, 5**0.5)


VALUES = st.one_of(
    st.floats(-1024, 1024, width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 2.0**100, 0.0, 1.0, -1.0]),
)


@given(
    x=arrays(np.float32, st.tuples(st.integers(1, 6), st.just(4)), elements=VALUES),
    missing=st.booleans(),
)
def test_no_record_adds_more_than_the_sensitivity(x: Any, missing: bool) -> None:
    asked = query(missing=missing, sizes=(2, 5))
    norms = np.linalg.norm(asked.rows(x), axis=1)
    assert np.isfinite(norms).all()
    assert norms.max() <= asked.sensitivity * (1 + 1e-12)


@given(
    x=arrays(np.float32, st.tuples(st.integers(1, 12), st.just(4)), elements=VALUES),
    data=st.data(),
)
def test_a_patient_moves_the_sums_by_no_more_than_that(x: Any, data: st.DataObject) -> None:
    owners = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(x), max_size=len(x))))
    asked, gone = query(missing=True, sizes=(2, 5)), owners == owners[0]
    whole = asked.sums(x, Units.of(owners))
    without = asked.sums(x[~gone], Units.of(owners[~gone]))
    assert np.linalg.norm(whole - without) <= asked.sensitivity * (1 + 1e-9)


def test_a_patient_adds_the_mean_of_its_records() -> None:
    x = np.array([[10, 0], [0, 0], [5, 1]], dtype=np.float32)
    sums = query().sums(x, Units.of(np.array(["a", "a", "b"])))
    assert sums.tolist() == [2.0, 0.0, 1.0, 0.0 + 1.0, 1.0 + 0.0]


def test_shares_of_units_by_hand() -> None:
    rows, shares = shares_of(Units.of(np.array([7, 8, 7, 7])))
    assert rows.tolist() == [0, 2, 3, 1]
    assert shares.tolist() == [1 / 3, 1 / 3, 1 / 3, 1.0]
    assert shares_of(Units.singles(2))[1].tolist() == [1.0, 1.0]


def scaled(x: Any) -> Any:
    return np.stack([x[:, 0] / 5 - 1, x[:, 1]], axis=1)


def test_without_noise_they_are_the_pooled_statistics() -> None:
    """To float64 rounding, over three sites of other sizes and means."""
    rng = np.random.default_rng(3)
    parts = [
        np.stack([rng.uniform(0, top, count), rng.uniform(-0.5, 1, count)], axis=1)
        for top, count in ((2, 7), (10, 40), (5, 1))
    ]
    sums = [query().sums(part, Units.singles(len(part))) for part in parts]
    found, pooled = common(query(), sums, noise_std=0.0), scaled(np.concatenate(parts))
    np.testing.assert_allclose(found.mean, pooled.mean(axis=0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.scale, pooled.std(axis=0), rtol=1e-12)
    assert found.records == 48.0


def test_missing_numbers_are_left_out_of_the_pooled_statistics() -> None:
    x = np.array([[np.nan, 0.5], [2.0, np.nan], [4.0, -0.5], [6.0, 0.0]])
    sums = query(missing=True).sums(x, Units.singles(4))
    found, pooled = common(query(missing=True), [sums], noise_std=0.0), scaled(x)
    np.testing.assert_allclose(found.mean, np.nanmean(pooled, axis=0), atol=1e-15)
    np.testing.assert_allclose(found.scale, np.nanstd(pooled, axis=0), rtol=1e-12)


def test_a_constant_column_one_record_and_no_record() -> None:
    x = np.array([[5.0, 1.0], [5.0, -1.0]])
    found = common(query(), [query().sums(x, Units.singles(2))], noise_std=0.0)
    assert found.scale.tolist() == [LEAST_SCALE, 1.0]
    one = common(query(), [query().sums(x[:1], Units.singles(1))], noise_std=0.0)
    assert (one.records, one.mean.tolist()) == (1.0, [0.0, 1.0])
    none = common(query(), [query().sums(x[:0], Units.singles(0))], noise_std=0.0)
    assert (none.records, none.mean.tolist()) == (1.0, [0.0, 0.0])
    assert np.isfinite(none.scale).all()


def test_the_least_scale_is_the_root_of_the_least_variance() -> None:
    assert pytest.approx(LEAST_VARIANCE**0.5) == LEAST_SCALE


def test_a_noised_variance_below_zero_is_floored_by_its_own_error() -> None:
    sums = np.array([100.0, 90.0, 0.0, 60.0, 50.0])  # 1 - .6 - .81 < 0
    found = common(query(), [sums], noise_std=5.0)
    assert found.scale[0] == pytest.approx((5.0 / 100) ** 0.5)
    assert found.scale[1] == pytest.approx(0.5**0.5)


@given(sums=arrays(np.float64, 12, elements=st.floats(-1e6, 1e6)), noise=st.floats(0, 1e4))
def test_whatever_the_noise_does_the_constants_are_usable(sums: Any, noise: float) -> None:
    asked = query(sizes=(3, 4))
    found = common(asked, [sums], noise_std=noise, most=500)
    assert (np.abs(found.mean) <= 1).all() and 1 <= found.records <= 500
    assert (found.scale >= LEAST_SCALE).all() and (found.scale <= 1).all()
    assert set(found.kept(10.0)) <= {0.0, 1.0} and len(found.kept(10.0)) == 7


def test_categories_with_few_records_are_not_kept() -> None:
    asked = replace(query(sizes=(3,)), bounds=(), names=())
    x = np.array([[0, 0, kind] for kind in (0, 0, 0, 1, 2, 2)], dtype=np.float32)
    found = common(asked, [asked.sums(x, Units.singles(6))], noise_std=0.0)
    assert found.counts.tolist() == [3.0, 1.0, 2.0]
    assert found.kept(2.0).tolist() == [1.0, 0.0, 1.0]


def test_drift_names_the_feature_that_is_elsewhere() -> None:
    rng = np.random.default_rng(5)
    here = np.stack([rng.uniform(0, 4, 200), rng.uniform(-1, 1, 200)], axis=1)
    there = np.stack([rng.uniform(6, 10, 200), rng.uniform(-1, 1, 200)], axis=1)
    sums = [query().sums(part, Units.singles(200)) for part in (*[here] * 6, there)]
    found = common(query(), sums, noise_std=0.0)
    named = [drifting(query(), each, found, noise_std=1.0) for each in sums]
    assert named == [*[[]] * 6, ["age"]]
    # what its noise could feign is not told
    assert drifting(query(), sums[6], found, noise_std=500.0) == []


def test_the_noise_is_as_wide_as_accounted(make_plan: MakePlan) -> None:
    plan = replace(make_plan(2), statistics=Statistics(share=0.3))
    spec = statistics_mechanism(plan, plan.sites[0])
    assert spec is not None and spec.clip_norm == StatisticsQuery.of(plan).sensitivity == 2.0
    sums, source = np.zeros(7), SeededNoise(4)
    drawn = [
        noised(spec, sums, source.stream(site="s", round=0, step=number)) for number in range(400)
    ]
    z = np.array(drawn) / spec.noise_std
    assert abs(z.var() - 1) < 5 * (2 / z.size) ** 0.5
    silent = replace(spec, noise_multiplier=0.0)
    assert noised(silent, sums, source.stream(site="s", round=0, step=0)) is sums
