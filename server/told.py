"""Which figures a site may tell of a model, and in which range: names are ours, never a site's."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.plan import Plan
from ..models.task_base import FIGURES
from ..privacy.derive import COUNTS

Figures = Mapping[str, tuple[float, float]]
"""The least and the largest value of each figure by its name."""

_MOST = 1e9
_SLACK = 1e-6  # a share may be rounded past 0 or 1


def figures_of(plan: Plan) -> dict[str, tuple[float, float]]:
    """Return what a site may tell: metrics of a public test part, else noised counts."""
    if plan.evaluation.origin != "public":
        return dict.fromkeys(COUNTS, (-_MOST, _MOST))
    shares = dict.fromkeys(FIGURES, (-_SLACK, 1 + _SLACK))
    return shares | {"rmse": (0.0, _MOST), "mae": (0.0, _MOST), "r2": (-_MOST, 1 + _SLACK)}


def may_be_told(metrics: Mapping[str, float], figures: Figures) -> bool:
    """Return whether every metric is one of the figures and in its range; none at all may be."""
    return all(
        name in figures and figures[name][0] <= value <= figures[name][1]
        for name, value in metrics.items()
    )
