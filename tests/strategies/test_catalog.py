"""Strategies by name, and the bound on how far one round can lead, attacked with updates."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collegium.core.layout import Layout
from collegium.core.plan import Plan
from collegium.strategies.adaptive import FedAdam
from collegium.strategies.catalog import step_bound, strategy_for
from collegium.strategies.mean import Mean

SIZE = 5
ADAM = [
    {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    {"beta1": 0.0, "beta2": 0.0, "tau": 1e-2},
    {"beta1": 0.9, "beta2": 0.0, "tau": 1e-2},
    {"beta1": 0.9, "beta2": 0.5, "tau": 1e-2},
    {"beta1": 0.5, "beta2": 0.25, "tau": 1e-2},
    {"beta1": 0.0, "beta2": 0.9, "tau": 1e-6},
]


def test_names(make_plan: Callable[..., Plan]) -> None:
    assert isinstance(strategy_for(make_plan()), Mean)
    assert isinstance(strategy_for(make_plan(strategy={"name": "fedadam"})), FedAdam)
    with pytest.raises(KeyError):
        strategy_for(make_plan(strategy={"name": "median"}))


@pytest.mark.parametrize(
    "config",
    [{"name": "mean", "server_learning_rate": 4.0}]
    + [{"name": "fedadam", "server_learning_rate": 0.3} | betas for betas in ADAM],
    ids=str,
)
def test_no_round_moves_further_than_the_bound(
    make_plan: Callable[..., Plan], config: dict[str, Any]
) -> None:
    plan = make_plan(strategy=config)
    strategy, layout = strategy_for(plan), Layout.of({"w": (SIZE,)})
    rng = np.random.default_rng(1)
    for largest in (1e-4, 1.0, 300.0):
        bound = step_bound(plan, update_norm=largest, size=SIZE)
        assert math.isfinite(bound)
        state, base = strategy.init(layout), np.zeros(SIZE, dtype=np.float32)
        for number in range(60):
            # long stretches in one direction, then silence, then a jolt: Adam's worst cases
            direction = np.ones(SIZE) if number % 20 < 12 else rng.normal(size=SIZE)
            size = largest * (0.0 if number % 20 in (12, 13, 14) else 1.0)
            update = (size * direction / np.linalg.norm(direction)).astype(np.float32)
            for weight in (1.0, 7.0):
                state = strategy.fold(state, update, weight)
            after, state = strategy.finish(state, base)
            assert np.linalg.norm(after.astype(np.float64) - base) <= bound * 1.001
            base = after


def test_bound_of_the_mean_by_hand(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan(strategy={"server_learning_rate": 4.0})
    assert step_bound(plan, update_norm=2.5, size=SIZE) == 10.0
