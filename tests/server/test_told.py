"""The figures that a site may tell: our names, our ranges, by the plan's own origin."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collegium.models.task_classification import classification_metrics
from collegium.server.told import figures_of, may_be_told

MakePlan = Callable[..., Any]


def test_a_public_test_part_tells_metrics(make_plan: MakePlan) -> None:
    figures = figures_of(make_plan(2))
    assert may_be_told({}, figures)
    assert may_be_told({"accuracy": 1.0, "auc": 0.0, "rmse": 40.0}, figures)
    for told in (
        {"correct": 1.0},
        {"accuracy": 1.1},
        {"auc": -0.1},
        {"rmse": -1.0},
        {"\ud800": 0.5},
    ):
        assert not may_be_told(told, figures)


def test_a_private_one_tells_counts(make_plan: MakePlan) -> None:
    figures = figures_of(make_plan(2, evaluation={"origin": "private"}))
    assert may_be_told({"correct": -3.5, "records": 12.0}, figures)
    for told in ({"accuracy": 0.5}, {"correct": 1e300, "records": 1.0}, {"records": -2e9}):
        assert not may_be_told(told, figures)


@pytest.mark.parametrize("classes", [2, 3])
def test_whatever_an_honest_site_computes_may_be_told(make_plan: MakePlan, classes: int) -> None:
    rng = np.random.default_rng(classes)
    figures = figures_of(make_plan(2))
    for size in (1, 2, 50):
        logits = (rng.normal(size=(size, classes)) * 100).astype(np.float32)
        found = classification_metrics(logits, rng.integers(0, classes, size))
        assert found
        assert may_be_told(found, figures)
