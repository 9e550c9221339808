"""How far one round can move the model: what a site lets a coordinator claim."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.codec import codec
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..privacy.bounds import update_norm_bound
from ..strategies.catalog import step_bound


def round_reach(plan: Plan, specs: Mapping[str, MechanismSpec], *, size: int) -> float:
    """Return how far (L2) one round can move the model (d = ``size``), whichever sites answer.

    ``specs`` holds each site's mechanism by name; every number is a constant of the plan.
    """
    largest = (1 + codec(plan.codec.name).relative_error) * max(
        update_norm_bound(
            specs[ref.name],
            size=size,
            public_records=ref.public_records,
            learning_rate=plan.rounds.local_learning_rate,
        )
        for ref in plan.sites
    )
    return step_bound(plan, update_norm=largest, size=size)
