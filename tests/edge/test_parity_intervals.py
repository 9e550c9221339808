"""Intervals of paired differences: published examples, a slow twin, and coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from collegium.edge.parity_figures import fidelity, figures_of
from collegium.edge.parity_intervals import (
    Difference,
    accuracy_difference,
    auc_difference,
    has_auc,
    resampled_auc,
)


def cells(both: int, first: int, second: int, neither: int) -> Difference:
    right = np.repeat([True, True, False, False], [both, first, second, neither])
    other = np.repeat([True, False, True, False], [both, first, second, neither])
    return accuracy_difference(right, other)


def test_the_published_example() -> None:
    """Newcombe 1998, table II: cells 36, 12, 2, 0 have .0569 to .3404 by method 10."""
    found = cells(36, 12, 2, 0)
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0569, abs=5e-5)
    assert found.high == pytest.approx(0.3404, abs=5e-5)


def test_independent_answers_reduce_to_newcombes_unpaired_interval() -> None:
    """Where both err on other records, phi is 0 after correction: squared and added Wilson."""
    n, share = 100, 0.5
    half = 0.5 * 1.96**2 / n
    low = (share + half - 1.96 * np.sqrt(share**2 / n + 1.96**2 / (4 * n * n))) / (1 + 1.96**2 / n)
    found = cells(25, 25, 25, 25)
    assert found.value == 0
    assert found.high == pytest.approx(np.sqrt(2) * (share - low), abs=1e-4)


@given(*(st.integers(0, 40) for _ in range(4)))
def test_intervals_hold_their_value_and_turn_around(a: int, b: int, c: int, d: int) -> None:
    if a + b + c + d == 0:
        with pytest.raises(ValueError, match="at least one"):
            cells(a, b, c, d)
        return
    found, turned = cells(a, b, c, d), cells(a, c, b, d)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(200, [0.9, 0.04, 0.03, 0.03], size=1500)
    hits = [found.low <= 0.01 <= found.high for found in (cells(*map(int, d)) for d in draws)]
    assert 0.93 <= np.mean(hits) <= 0.99


def outputs(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    y[:classes] = np.arange(classes)
    found = np.round(rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[y], 1)  # with ties
    return found.astype(np.float32), y


@pytest.mark.parametrize("classes", [2, 3])
def test_resampled_auc_equals_sklearn_on_the_drawn_records(classes: int) -> None:
    """The weights are drawn here again, and records are repeated by them: the slow twin."""
    out, y = outputs(60, classes, 1)
    fast = resampled_auc(out, y)
    from collegium.edge.parity_intervals import SEED, _weights, auc_scores

    weights = _weights(y, len(fast), np.random.default_rng(SEED))
    for place in (0, 7, len(fast) - 1):
        drawn = np.repeat(np.arange(len(y)), weights[place].astype(int))
        scores, truth = auc_scores(out[drawn]), y[drawn]
        if classes == 2:
            slow = roc_auc_score(truth, scores[:, 0])
        else:
            slow = np.mean([roc_auc_score(truth == c, scores[:, c]) for c in range(classes)])
        assert fast[place] == pytest.approx(slow, abs=1e-9)


def test_the_bootstrap_centres_on_the_auc_and_is_paired() -> None:
    out, y = outputs(400, 3, 2)
    fast = resampled_auc(out, y)
    assert fast.mean() == pytest.approx(figures_of(out, y)["auc"], abs=0.01)
    same = auc_difference(0.0, fast, resampled_auc(out * 2, y))
    assert abs(same.low) < 0.01 and abs(same.high) < 0.01  # nearly the same model, same resamples
    other, _ = outputs(400, 3, 3)
    worse = resampled_auc(other, y)
    gap = auc_difference(float(fast.mean() - worse.mean()), fast, worse)
    assert 0 < gap.low < gap.value < gap.high


def test_auc_needs_every_class() -> None:
    assert has_auc(np.array([0, 1]), 2) and not has_auc(np.array([1, 1]), 2)
    assert not has_auc(np.array([0, 1]), 3)
    assert "auc" not in figures_of(np.eye(3)[[0, 1]], np.array([0, 1]))
    assert figures_of(np.eye(3), None) == {}


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(2, 4), st.integers(0, 1000))
def test_fidelity_is_whole_with_itself_and_within_bounds(n: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, n, classes))
    one[rng.random(n) < 0.3] = 0
    agreement, cosine = fidelity(one, two)
    assert 0 <= agreement <= 1 and -1 <= cosine <= 1
    assert fidelity(one, one)[0] == 1.0 and fidelity(one, one)[1] == pytest.approx(1.0)
