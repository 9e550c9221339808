"""What result.json says of common statistics and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core.messages import CALIBRATION, STATISTICS
from ..core.plan import Plan
from ..models.fitted import KEPT, MEAN, OFFSET, SCALE, TEMPERATURE
from ..privacy.accountant import epsilon_of
from ..privacy.derive import questions
from .store import Store
from .survey import NAMES


def fitted_of(store: Store) -> dict[str, Any]:
    """Return what the sites fitted beside the rounds, by name, None for what nobody asked."""
    found = {name: store.recall(name) for name in NAMES.values()}
    return {name: value and _without_bytes(value) for name, value in found.items()}


def fitted_entries(plan: Plan, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``statistics`` and ``calibration`` entries; each null where the plan has none.

    ``found`` is what ``fitted_of`` returned; plain values, as result.json holds them.
    """
    statistics, calibration = found.get("statistics"), found.get("calibration")
    return {
        "statistics": statistics and _statistics(plan, statistics),
        "calibration": calibration and _calibration(plan, calibration),
    }


def _statistics(plan: Plan, found: Mapping[str, Any]) -> dict[str, Any]:
    """Means and deviations in the features' own units, the categories that are kept."""
    asked, model, values = plan.statistics, plan.model, found["values"]
    bounds = model.bounds if asked and asked.normalise else {}
    middle = {name: (low + high) / 2 for name, (low, high) in bounds.items()}
    half = {name: (high - low) / 2 for name, (low, high) in bounds.items()}
    return {
        "features": list(bounds),
        "mean": {
            name: middle[name] + half[name] * value
            for name, value in zip(bounds, values[MEAN], strict=True)
        },
        "deviation": {
            name: half[name] * value for name, value in zip(bounds, values[SCALE], strict=True)
        },
        "kept": _kept(plan, values[KEPT]) if asked and asked.vocabulary else None,
        "sites": found["sites"],
        "refused": found["refused"],
        "epsilon_alone": _alone(plan, STATISTICS),
        "drift": found["drift"],
    }


def _kept(plan: Plan, flags: list[float]) -> dict[str, list[str]]:
    left = iter(flags)
    return {
        name: [category for category in known if next(left)]
        for name, known in plan.model.categories.items()
    }


def _calibration(plan: Plan, found: Mapping[str, Any]) -> dict[str, Any]:
    """``threshold``: the chance of class 1, before calibration, from which it is the answer."""
    asked, values = plan.calibration, found["values"]
    offset = float(values[OFFSET][-1])
    return {
        "criterion": asked.criterion if asked else None,
        "temperature": float(values[TEMPERATURE][0]),
        "offset": offset,
        "threshold": 1 / (1 + math.exp(min(offset, 700.0))),
        "sites": found["sites"],
        "refused": found["refused"],
        "epsilon_alone": _alone(plan, CALIBRATION),
    }


def _alone(plan: Plan, question: int) -> float | None:
    """Return what this step would cost if it were all; null without privacy."""
    spec = questions(plan, plan.sites[0]).get(question)
    return None if spec is None else epsilon_of([(spec, spec.steps)], plan.privacy.delta)


def _without_bytes(found: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in found.items() if name != "answers"}
    return values | {"sites": list(found["answers"])}
