"""What every task is made of: outputs, a loss per record, metrics, right answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.forms import METRICS

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.floating[Any]]
Labels = NDArray[Any]
Rights = NDArray[np.bool_]

FIGURES = frozenset(
    (
        *METRICS,
        "majority",
        "mae",
        "r2",
        "sensitivity",
        "specificity",
        "positive_rate",
        "brier",
    )
)
"""The names of all figures that a task may tell, a plug-in's too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A loss per record, so that each record's gradient can be clipped, and its metrics.

    A model gives (batch, ``outputs``, ...); labels are as ``data.site_data`` says. ``loss`` maps
    outputs and labels to (batch,) losses in nats, and no record's loss depends on another
    record. ``metrics`` maps the same as numpy arrays to named figures, leaving out those that
    the records do not define. ``right`` maps them to (n,) whether each answer is right; None
    where answers are not right or wrong. ``compact`` turns a batch's outputs into all that
    ``metrics`` needs of them, for outputs too large to be kept; ``metrics`` takes either.
    """

    name: str
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: Callable[[Floats, Labels], dict[str, float]]
    right: Callable[[Floats, Labels], Rights] | None = None
    compact: Callable[[Tensor], Tensor] | None = None


def finite(figures: dict[str, float]) -> dict[str, float]:
    """Return the figures of ``FIGURES`` that are numbers, as plain floats."""
    return {
        name: float(value)
        for name, value in figures.items()
        if name in FIGURES and np.isfinite(value)
    }
