"""Regression: scaled by public bounds, measured in the target's unit."""

import numpy as np
import pytest
import torch

from collegium.core.plan import ModelRef
from collegium.models.task_regression import regression

STAY = regression(ModelRef(name="plugin:a", task="regression", target=(0.0, 20.0)))  # days


def test_the_loss_is_half_the_square_and_then_linear() -> None:
    # targets 10, 20, 5 are 0, 1, -.5; errors .5, 0, 2.5: .125, 0, 2.5 - .5
    loss = STAY.loss(torch.tensor([[0.5], [1.0], [2.0]]), torch.tensor([10.0, 20.0, 5.0]))
    assert loss.tolist() == pytest.approx([0.125, 0.0, 2.0])


def test_targets_outside_the_bounds_count_as_the_bound() -> None:
    loss = STAY.loss(torch.tensor([[1.0], [-1.0]]), torch.tensor([400.0, -3.0]))
    assert loss.tolist() == [0.0, 0.0]


def test_metrics_are_in_the_targets_unit() -> None:
    # answers 10, 20, 0 (clipped from 20, 24, -4 at most); truth 12, 16, 0: errors -2, 4, 0
    found = STAY.metrics(np.array([[0.0], [1.4], [-1.4]]), np.array([12.0, 16.0, 0.0]))
    assert found["rmse"] == pytest.approx(np.sqrt(20 / 3))
    assert found["mae"] == pytest.approx(2.0)
    mean = 28 / 3
    spread = sum((value - mean) ** 2 for value in (12, 16, 0))
    assert found["r2"] == pytest.approx(1 - 20 / spread)


def test_equal_targets_have_no_share_of_variance() -> None:
    found = STAY.metrics(np.zeros((3, 1)), np.full(3, 10.0))
    assert found == {"rmse": 0.0, "mae": 0.0}
    assert STAY.right is None
