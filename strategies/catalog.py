"""The strategies a plan may name."""

from __future__ import annotations

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

    ``update_norm`` is the largest update that any site of the roster may send. For the mean it is
    learning rate * that. For FedAdam the first moment is no longer than that and each divisor at
    least tau; and each coordinate moves by at most lr (1-b1) / sqrt((1-b2)(1 - b1^2/b2)), by
    Cauchy-Schwarz on its two moments, where b1^2 < b2. The smaller of the two counts.
    """
    config = plan.strategy
    reach = config.server_learning_rate * update_norm
    if config.name != "fedadam":
        return reach
    reach /= config.tau
    if config.beta1**2 >= config.beta2:
        return reach
    spread = (1 - config.beta2) * (1 - config.beta1**2 / config.beta2)
    each = (1 - config.beta1) / spread**0.5
    return min(reach, config.server_learning_rate * each * size**0.5)
