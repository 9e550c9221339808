"""The strategies a plan may name."""

from __future__ import annotations

import math

from ..core.plan import Plan
from .adaptive import FedAdam
from .base import IterateAverage, Strategy
from .mean import Mean


def strategy_for(plan: Plan) -> Strategy:
    """Return the plan's strategy; raises ``KeyError`` for a name that checks let through."""
    config = plan.strategy
    average = IterateAverage(plan.rounds.count, config.iterate_average)
    match config.name:
        case "mean":
            return Mean(server_learning_rate=config.server_learning_rate, average=average)
        case "fedadam":
            return FedAdam(
                server_learning_rate=config.server_learning_rate,
                beta1=config.beta1,
                beta2=config.beta2,
                tau=config.tau,
                average=average,
            )
        case name:
            raise KeyError(name)


def step_bound(plan: Plan, *, update_norm: float, size: int) -> float:
    """Return how far (L2) one round can move the global model (d = ``size``) in this plan.

    For the mean it is learning rate * the largest admitted update. For FedAdam each coordinate
    moves by at most lr (1-b1) / sqrt((1-b2)(1 - b1^2/b2)), by Cauchy-Schwarz on its two moments.
    """
    config = plan.strategy
    if config.name == "fedadam":
        spread = (1 - config.beta2) * (1 - config.beta1**2 / config.beta2)
        each = (1 - config.beta1) / spread**0.5 if spread > 0 else math.inf
        return config.server_learning_rate * each * size**0.5
    return config.server_learning_rate * update_norm
