"""From executed mechanisms to epsilon and back, by privacy loss distributions.

Accounting is dp-accounting's PLD (Koskela et al. 2020; Doroshenko et al. 2022), pessimistic
rounding, value discretization ``INTERVAL``. Nothing here ever sees a record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from dp_accounting import dp_event as events
from dp_accounting import privacy_accountant
from dp_accounting.pld import PLDAccountant

from ..core.errors import InvalidInput, NotBuiltYet
from ..core.mechanism import MechanismSpec, Relation, Unit

INTERVAL = 1e-3
"""Discretization of the privacy loss; 1e-4 changes epsilon by about 1e-3 (notes/privacy.md, 5)."""

LEAST_NOISE = 0.2
"""Calibration never goes below this: with hardly any noise the accounting takes minutes."""

_RELATIONS = {
    "add-or-remove-one": privacy_accountant.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": privacy_accountant.NeighboringRelation.REPLACE_ONE,
    "replace-special": privacy_accountant.NeighboringRelation.REPLACE_SPECIAL,
}

Spend = Sequence[tuple[MechanismSpec, int]]
"""Mechanisms that ran (or are reserved), each with its number of noisy steps."""

_Key = tuple[float, float, int]
"""What the privacy loss of one step depends on: noise multiplier, sampling rate, batch cap."""


def epsilon_of(spend: Spend, delta: float) -> float:
    """Return the epsilon of all these steps composed, at this delta.

    The mechanisms may differ in noise and sampling rate, not in unit or relation: those raise
    ``InvalidInput``. No step costs nothing; a step without noise costs ``inf``.
    """
    steps: dict[_Key, int] = {}
    for spec, count in spend:
        key = (spec.noise_multiplier, spec.sampling_rate, spec.batch_cap)
        steps[key] = steps.get(key, 0) + count
    used = tuple(sorted((key, count) for key, count in steps.items() if count > 0))
    return _epsilon(used, _relation(spec for spec, _ in spend), delta)


@lru_cache(maxsize=256)
def calibrate(
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    relation: Relation = "add-or-remove-one",
    batch_cap: int = 0,
    public_records: int = 0,
) -> float:
    """Return the smallest noise multiplier, rounded up to 1e-4, that keeps steps within epsilon.

    ``public_records`` is the dataset size that truncated sampling needs. Raises
    ``InvalidInput`` when no noise multiplier below 10,000 is enough.
    """
    del public_records  # read by truncated sampling, which `_event` refuses until it is built

    def spent(noise_multiplier: float) -> float:
        return _epsilon((((noise_multiplier, sampling_rate, batch_cap), steps),), relation, delta)

    low, high = LEAST_NOISE, 1.0
    while spent(high) > epsilon:
        low, high = high, high * 2
        if high > 10_000:
            raise InvalidInput(
                f"no noise multiplier keeps {steps} steps within epsilon {epsilon:g}",
                why=f"even 10,000 is not enough at delta {delta:g}, as far as the accountant's"
                f" resolution ({INTERVAL:g}) can tell",
                cure="raise epsilon or delta, or take fewer rounds",
            )
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > epsilon else (low, middle)
    return math.ceil(high * 1e4) / 1e4


@lru_cache(maxsize=4096)
def _epsilon(steps: tuple[tuple[_Key, int], ...], relation: Relation, delta: float) -> float:
    if not steps:
        return 0.0
    if any(key[0] <= 0 for key, _ in steps):
        return math.inf
    accountant = PLDAccountant(_RELATIONS[relation], value_discretization_interval=INTERVAL)
    for key, count in steps:
        accountant.compose(events.SelfComposedDpEvent(_event(key), count))
    return float(accountant.get_epsilon(delta))


def _event(key: _Key) -> events.DpEvent:
    noise_multiplier, sampling_rate, batch_cap = key
    if batch_cap:
        raise NotBuiltYet(
            "truncated Poisson sampling (batch_cap > 0) is not built yet",
            why="its accounting comes with the privacy core",
            cure="set batch_cap = 0",
        )
    gaussian = events.GaussianDpEvent(noise_multiplier)
    return events.PoissonSampledDpEvent(sampling_rate, gaussian)


def _relation(specs: Iterable[MechanismSpec]) -> Relation:
    kinds: set[tuple[Unit, Relation]] = {(spec.unit, spec.relation) for spec in specs}
    if len(kinds) > 1:
        raise InvalidInput(
            "mechanisms of different units or neighbouring relations cannot be composed",
            why="their epsilons bound different things: " + ", ".join(map(str, sorted(kinds))),
            cure="keep one unit and relation per data asset",
        )
    return kinds.pop()[1] if kinds else "add-or-remove-one"
