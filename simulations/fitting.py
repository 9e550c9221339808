"""The constants that sites fit together, fitted on any records at hand: for comparison only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..client.survey import exact_sums
from ..client.train import Trainer
from ..core.layout import Vector
from ..core.messages import ONCE
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..privacy.noise import Floats, NoiseSource
from ..privacy.survey import noised
from ..server.survey import (
    Asked,
    calibration_asked,
    fit_calibration,
    fit_statistics,
    set_values,
    statistics_asked,
)


def with_statistics(
    plan: Plan,
    trainer: Trainer,
    data: Mapping[str, SiteData],
    *,
    noise: NoiseSource | None = None,
    label: str = "",
) -> Vector:
    """Return the open model (d + e,) with the common statistics of these sites' records.

    ``data`` is by roster name: one site for a local model, all for a pooled one. ``noise`` adds
    what the site itself would add, from its stream of ``label``; None: exact sums.
    """
    if plan.statistics is None:
        return trainer.open_vector
    asked, opened = statistics_asked(plan), trainer.open_vector
    found = fit_statistics(
        plan, *_answered(plan, trainer, opened, asked, data=data, noise=noise, label=label)
    )
    return set_values(trainer.layout, trainer.fitted, opened, found["values"])


def with_calibration(
    plan: Plan,
    trainer: Trainer,
    vector: Vector,
    data: Mapping[str, SiteData],
    *,
    noise: NoiseSource | None = None,
    label: str = "",
) -> Vector:
    """Return a trained model (d + e,) with threshold and temperature; as ``with_statistics``."""
    if plan.calibration is None:
        return vector
    asked = calibration_asked(plan, vector)
    found = fit_calibration(
        plan, *_answered(plan, trainer, vector, asked, data=data, noise=noise, label=label)
    )
    return set_values(trainer.layout, trainer.fitted, vector, found["values"])


def _answered(
    plan: Plan,
    trainer: Trainer,
    vector: Vector,
    asked: Asked,
    *,
    data: Mapping[str, SiteData],
    noise: NoiseSource | None,
    label: str,
) -> tuple[Asked, dict[str, Floats]]:
    """Return the question as it was answered, and each site's sums."""
    sums: dict[str, Floats] = {}
    specs = dict(asked.specs)
    for name, records in data.items():
        if noise is None:
            specs[name] = replace(specs[name], noise_multiplier=0.0)
        exact = exact_sums(
            plan, asked.question, specs[name], records, trainer=trainer, vector=vector
        )
        sums[name] = exact
        if noise is not None:
            stream = noise.stream(site=label or name, round=ONCE, attempt=asked.question, step=0)
            sums[name] = noised(specs[name], exact, stream)
    return replace(asked, specs=specs), sums
