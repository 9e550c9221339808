"""The weighted mean by hand and against a slow twin; the average of the last iterates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.layout import Layout
from collegium.strategies.base import IterateAverage, State, Strategy, WeightedSum
from collegium.strategies.mean import Mean

LAYOUT = Layout.of({"w": (2,)})


def vector(*values: float) -> np.ndarray:
    """A float32 vector."""
    return np.array(values, dtype=np.float32)


def mean(rate: float = 1.0, *, rounds: int = 1, share: float = 0.0) -> Mean:
    """A mean strategy."""
    return Mean(server_learning_rate=rate, average=IterateAverage(rounds, share))


def one_round(
    strategy: Strategy, state: State, base: np.ndarray, updates: list[tuple[np.ndarray, float]]
) -> tuple[np.ndarray, State]:
    """Fold and finish."""
    for update, weight in updates:
        state = strategy.fold(state, update, weight)
    return strategy.finish(state, base)


def test_by_hand() -> None:
    """(1*(3,0) + 2*(0,3)) / 3 = (1,2); base (10,10) + 2 * that = (12,14)."""
    strategy = mean(2.0)
    updates = [(vector(3, 0), 1.0), (vector(0, 3), 2.0)]
    after, state = one_round(strategy, strategy.init(LAYOUT), vector(10, 10), updates)
    np.testing.assert_array_equal(after, vector(12, 14))
    assert after.dtype == np.float32
    again, _ = one_round(strategy, state, after, updates)  # nothing of round 1 is left in it
    np.testing.assert_array_equal(again, vector(14, 18))
    assert "released" not in state


def test_only_the_weights_of_those_who_answered_count() -> None:
    strategy = mean()
    after, _ = one_round(strategy, strategy.init(LAYOUT), vector(0, 0), [(vector(4, 2), 0.001)])
    np.testing.assert_allclose(after, (4, 2), rtol=1e-6)


def test_fold_does_not_change_what_it_was_given() -> None:
    strategy = mean()
    state = strategy.init(LAYOUT)
    before = {name: value.copy() for name, value in state.items()}
    strategy.fold(state, vector(1, 1), 1.0)
    for name, value in state.items():
        np.testing.assert_array_equal(value, before[name])


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2), st.floats(0.1, 1e6)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_slow_twin(rows: list[tuple[list[float], float]]) -> None:
    strategy = mean()
    updates = [(vector(*values), weight) for values, weight in rows]
    after, _ = one_round(strategy, strategy.init(LAYOUT), vector(0, 0), updates)
    total = sum(weight for _, weight in rows)
    for place in range(2):
        slow = sum(float(np.float32(v[place])) * weight for v, weight in rows) / total
        assert after[place] == pytest.approx(slow, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize(
    ("rounds", "share", "averaged"),
    [(4, 0.0, 0), (4, 0.5, 2), (3, 0.5, 1), (60, 0.5, 30), (100, 0.29, 29), (10, 0.05, 0)],
)
def test_how_many_iterates_are_averaged(rounds: int, share: float, averaged: int) -> None:
    strategy = mean(rounds=rounds, share=share)
    state, base = strategy.init(LAYOUT), vector(0, 0)
    iterates: list[np.ndarray] = []
    for number in range(rounds):
        base, state = one_round(strategy, state, base, [(vector(number, 1), 1.0)])
        iterates.append(base)
    if averaged == 0:
        assert "released" not in state
    else:
        expected = np.mean(np.array(iterates[-averaged:], dtype=np.float64), axis=0)
        np.testing.assert_allclose(state["released"], expected, rtol=1e-6)
        assert state["released"].dtype == np.float32


def test_state_survives_being_stored() -> None:
    """A state that went through arrays of bytes gives the same next round to the last bit."""
    strategy = mean(rounds=4, share=0.5)
    state, base = strategy.init(LAYOUT), vector(0.1, 0.2)
    for _ in range(3):
        base, state = one_round(strategy, state, base, [(vector(0.3, -0.7), 3.0)])
    stored = {
        name: np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape)
        for name, value in state.items()
    }
    expected, kept = one_round(strategy, state, base, [(vector(1, 1), 1.0)])
    found, again = one_round(strategy, stored, base, [(vector(1, 1), 1.0)])
    assert expected.tobytes() == found.tobytes()
    assert kept["released"].tobytes() == again["released"].tobytes()


def test_sums_are_float64() -> None:
    """10,000 updates of 1e-4 beside one of 1e4: float32 sums would lose them."""
    state = WeightedSum.empty(LAYOUT)
    state = WeightedSum.add(state, vector(1e4, 0), 1.0)
    for _ in range(10_000):
        state = WeightedSum.add(state, vector(1e-4, 0), 1.0)
    assert WeightedSum.mean(state)[0] == pytest.approx(10_001 / 10_001, rel=1e-6)
