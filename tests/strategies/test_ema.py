"""The exponential average by hand, and the average that a plan asks for."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.layout import Layout
from collegium.core.plan import Plan
from collegium.strategies.base import ExponentialAverage, IterateAverage, State
from collegium.strategies.catalog import average_for, strategy_for

LAYOUT = Layout.of({"w": (2,)})


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_by_hand() -> None:
    """Decay 1/2: after 2, then 4: (1/4 * 2 + 1/2 * 4) / (1 - 1/4) = 10/3; first round: 2."""
    average = ExponentialAverage(0.5)
    state = average.add(average.empty(LAYOUT), vector(2, -2))
    np.testing.assert_array_equal(state["released"], vector(2, -2))
    state = average.add(state, vector(4, 0))
    np.testing.assert_allclose(state["released"], vector(10 / 3, -2 / 3), rtol=1e-7)
    assert state["released"].dtype == np.float32


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.floats(0.01, 0.999),
)
def test_it_is_the_weighted_mean_of_all_iterates(values: list[float], decay: float) -> None:
    average = ExponentialAverage(decay)
    state: State = average.empty(LAYOUT)
    for value in values:
        state = average.add(state, vector(value, 1.0))
    weights = decay ** np.arange(len(values))[::-1]
    expected = float(np.dot(weights, values) / weights.sum())
    scale = max(map(abs, values))
    np.testing.assert_allclose(state["released"][0], expected, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(state["released"][1], 1.0, rtol=1e-6)  # no pull to the zero start


def test_a_plan_releases_the_average_and_goes_on_from_the_last(
    make_plan: Callable[..., Plan],
) -> None:
    plan = make_plan(strategy={"ema": 0.5, "server_learning_rate": 1.0})
    strategy = strategy_for(plan)
    state, base = strategy.init(LAYOUT), vector(0, 0)
    for _ in range(2):
        base, state = strategy.finish(strategy.fold(state, vector(1, 2), 3.0), base)
    np.testing.assert_array_equal(base, vector(2, 4))
    np.testing.assert_allclose(state["released"], vector(5 / 3, 10 / 3), rtol=1e-7)


def test_the_state_is_plain_arrays_that_resume(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan(strategy={"name": "fedadam", "ema": 0.9})
    state, base = strategy_for(plan).init(LAYOUT), vector(0, 0)
    for number in range(4):
        copied = {name: np.array(value) for name, value in state.items()}
        folded = strategy_for(plan).fold(copied, vector(number, 1), 1.0)
        base, state = strategy_for(plan).finish(folded, base)
    once, other = strategy_for(plan), vector(0, 0)
    kept = once.init(LAYOUT)
    for number in range(4):
        other, kept = once.finish(once.fold(kept, vector(number, 1), 1.0), other)
    assert state["released"].tobytes() == kept["released"].tobytes()
    assert all(isinstance(value, np.ndarray) for value in state.values())


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, IterateAverage),
        ({"iterate_average": 0.5}, IterateAverage),
        ({"ema": 0.9}, ExponentialAverage),
    ],
)
def test_which_average(
    make_plan: Callable[..., Plan], config: dict[str, float], kind: type
) -> None:
    assert isinstance(average_for(make_plan(strategy=config)), kind)
