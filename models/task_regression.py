"""Regression: one number per record, scaled by public bounds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.nn import functional

from ..core.errors import InvalidInput
from . import metrics
from .task_base import Floats, Labels, Task, finite

if TYPE_CHECKING:
    from ..core.plan import ModelRef


def regression(ref: ModelRef) -> Task:
    """Return the task of answering a number within the plan's public bounds.

    Raises ``InvalidInput`` where the plan has none.
    """
    if len(ref.target) != 2 or not ref.target[0] < ref.target[1]:
        raise InvalidInput(
            "regression needs the target's public bounds",
            why="targets are scaled by them, never by the records",
            cure="write [model] target = [lowest, highest]",
        )
    low, high = ref.target
    return Task(
        name="regression",
        outputs=1,
        loss=partial(huber, low=low, high=high),
        metrics=partial(regression_metrics, low=low, high=high),
    )


def huber(outputs: Tensor, labels: Tensor, *, low: float, high: float) -> Tensor:
    """Return each record's Huber loss in units of half the target's range: (batch,).

    ``outputs`` (batch, 1), in which -1 stands for ``low`` and 1 for ``high``; ``labels`` (batch,)
    in the target's unit, clipped to the bounds. Half the squared error up to half the range,
    linear beyond, so that no record pulls harder than that. Huber 1964.
    """
    scaled = 2 * (labels.to(outputs).clamp(low, high) - low) / (high - low) - 1
    return functional.huber_loss(outputs[:, 0], scaled, reduction="none")


def regression_metrics(
    outputs: Floats, labels: Labels, *, low: float, high: float
) -> dict[str, float]:
    """Return ``rmse`` and ``mae`` in the target's unit, and ``r2`` where the targets differ.

    ``outputs`` (n, 1) as ``huber`` takes them; answers are clipped to the bounds, ``labels``
    (n,) are taken as they are. No records: no metrics.
    """
    if len(labels) == 0:
        return {}
    answers = (np.clip(outputs[:, 0].astype(np.float64), -1, 1) + 1) / 2 * (high - low) + low
    figures = {"rmse": metrics.rmse(answers, labels), "mae": metrics.mae(answers, labels)}
    if len(labels) > 1 and np.ptp(labels) > 0:
        figures["r2"] = metrics.r2(answers, labels)
    return finite(figures)
