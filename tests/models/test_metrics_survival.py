"""The concordance index against a slow twin that looks at every pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.models import metrics_survival
from collegium.models.metrics_survival import c_index


def slowly(risks: np.ndarray, times: np.ndarray, events: np.ndarray) -> float:
    """Harrell's definition, pair by pair."""
    agreed, pairs = 0.0, 0
    for i in range(len(times)):
        for j in range(len(times)):
            if not events[i] or i == j:
                continue
            if times[i] < times[j] or (times[i] == times[j] and not events[j]):
                pairs += 1
                agreed += 1.0 if risks[i] > risks[j] else 0.5 if risks[i] == risks[j] else 0.0
    return agreed / pairs if pairs else float("nan")


def test_by_hand() -> None:
    # events at 1, 3; censored at 2, 4. Pairs (1,2) (1,3) (1,4) (3,4): the second is out of order
    times, events = np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, False])
    assert c_index(np.array([3.0, 1.0, 4.0, 0.0]), times, events) == 3 / 4
    assert c_index(np.zeros(4), times, events) == 0.5
    assert c_index(-times, times, events) == 1.0


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(0, 4), st.booleans()), min_size=0, max_size=30
    )
)
def test_ties_and_censoring_as_the_slow_twin_counts_them(
    rows: list[tuple[int, int, bool]],
) -> None:
    risks = np.array([row[0] for row in rows], dtype=np.float64)
    times = np.array([row[1] for row in rows], dtype=np.float64)
    events = np.array([row[2] for row in rows], dtype=np.bool_)
    assert c_index(risks, times, events) == pytest.approx(slowly(risks, times, events), nan_ok=True)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    risks, times, events = rng.normal(size=50), rng.integers(0, 20, 50) * 1.0, rng.random(50) < 0.6
    whole = c_index(risks, times, events)
    monkeypatch.setattr(metrics_survival, "_CELLS", 60)
    assert c_index(risks, times, events) == whole == slowly(risks, times, events)


def test_without_an_event_nothing_compares() -> None:
    assert np.isnan(c_index(np.ones(3), np.arange(3.0), np.zeros(3, dtype=np.bool_)))
