"""In words: what leaves a site under a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.plan import Plan
    from ..server.planner import Forecast


def leaves(plan: Plan, forecast: Forecast) -> Iterator[str]:
    """Yield each thing that a site sends; nothing else does leave it."""
    noised = (
        "clipped, summed and noised" if plan.privacy.enabled else "clipped and summed, no noise"
    )
    word = "noised " if plan.privacy.enabled else ""
    if plan.statistics is not None:
        yield f"{word}sums over its training records, once, before the first round"
    yield f"{forecast.trainable_parameters:,} numbers per round ({noised})"
    if plan.calibration is not None:
        yield f"{word}counts of its scores by class, once, after the last round"
    yield "the head of its ledger"
    when = "after the last round" if not plan.evaluation.every else "by round"
    if plan.evaluation.origin == "public":
        yield f"metrics on its test part, declared public, {when}"
    elif plan.privacy.enabled:
        yield f"two noised counts of its test part (right answers, records), {when}"
