"""The strategies a plan may name; those of other packages are entry points."""

from __future__ import annotations

from typing import Protocol, cast

from ..core.errors import NotAvailable
from ..core.plan import Plan
from ..core.plugins import is_plugin, load_plugin
from .adaptive import FedAdam
from .base import Average, ExponentialAverage, IterateAverage, Strategy
from .mean import Mean


class StrategyPlugin(Protocol):
    """What an entry point of ``collegium.strategies`` is: ``plugin:NAME`` in a plan."""

    def build(self, plan: Plan, *, average: Average) -> Strategy:
        """Return the strategy; it gives each round's iterate to ``average``."""
        ...

    def step_bound(self, plan: Plan, *, update_norm: float, size: int) -> float:
        """Return how far one round can move the model, as ``step_bound`` below: a site takes no
        model from a coordinator that lies beyond."""
        ...


def average_for(plan: Plan) -> Average:
    """Return what the plan releases in place of the last iterate."""
    if plan.strategy.ema:
        return ExponentialAverage(plan.strategy.ema)
    return IterateAverage(plan.rounds.count, plan.strategy.iterate_average)


def strategy_for(plan: Plan) -> Strategy:
    """Return the plan's strategy.

    Raises ``KeyError`` for a name that checks let through, ``NotAvailable`` for a plug-in that
    is not installed or is no strategy.
    """
    config, average = plan.strategy, average_for(plan)
    if is_plugin(config.name):
        return _plugin(config.name).build(plan, average=average)
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
    if is_plugin(config.name):
        return float(_plugin(config.name).step_bound(plan, update_norm=update_norm, size=size))
    reach = config.server_learning_rate * update_norm
    if config.name != "fedadam":
        return reach
    reach /= config.tau
    if config.beta1**2 >= config.beta2:
        return reach
    spread = (1 - config.beta2) * (1 - config.beta1**2 / config.beta2)
    each = (1 - config.beta1) / spread**0.5
    return min(reach, config.server_learning_rate * each * size**0.5)


def _plugin(name: str) -> StrategyPlugin:
    found = load_plugin("strategies", name)
    if not all(callable(getattr(found, part, None)) for part in ("build", "step_bound")):
        raise NotAvailable(
            f"'{name}' is no strategy",
            why="a strategy offers build(plan, *, average) and step_bound(plan, *, update_norm,"
            " size)",
            cure="mend the package that offers it",
        )
    return cast("StrategyPlugin", found)
