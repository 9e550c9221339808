"""Survival: the hazard of an event over time, with a loss that no other record enters.

Cox's partial likelihood compares every record with all others, so that no record's gradient could
be clipped alone. The piecewise exponential model has the same risks, and a baseline hazard that is
constant between public times, fitted with them (Holford, Biometrics 1980; Friedman, Annals of
Statistics 1982): with fine intervals both give the same coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidInput
from .metrics_survival import c_index
from .task_base import Floats, Labels, Task, finite

if TYPE_CHECKING:
    from ..core.plan import ModelRef

STEEP = 10.0  # log hazard per last cut time from which the hazard grows linearly, not faster


def survival(ref: ModelRef) -> Task:
    """Return the task of ranking records by their risk; raises ``InvalidInput`` without times."""
    cuts = ref.target
    rising = all(low < high for low, high in pairwise(cuts))
    if len(cuts) < 2 or not rising or cuts[0] < 0:
        raise InvalidInput(
            "survival needs public times",
            why="the baseline hazard is constant between them",
            cure="write rising times from 0 on, like [model] target = [0, 90, 180, 365]",
        )
    return Task(
        name="survival",
        outputs=1 + len(cuts),
        loss=partial(piecewise_exponential, cuts=tuple(cuts)),
        metrics=partial(survival_metrics, cuts=tuple(cuts)),
    )


def piecewise_exponential(outputs: Tensor, labels: Tensor, *, cuts: Sequence[float]) -> Tensor:
    """Return each record's negative log likelihood, (batch,) nats.

    ``outputs`` (batch, 1 + cuts): the log risk f, then the log baseline hazard b_j of each
    interval [cuts[j], cuts[j+1]), events per last cut time; the first interval begins at 0, the
    last one is open. ``labels`` (batch, 2): time t in the unit of ``cuts``, and 1 where the event
    was seen, 0 where the record was censored. -event (b_j(t) + f) + sum_j exp(b_j + f) times the
    time spent in j (Holford 1980, equation 2).
    """
    unit = cuts[-1]
    time = (labels[:, 0].to(outputs) / unit).clamp(min=0.0)
    event = labels[:, 1].to(outputs)
    edges = torch.tensor([0.0, *(cut / unit for cut in cuts[1:]), float("inf")]).to(outputs)
    starts, ends = edges[:-1], edges[1:]  # (k,)
    spent = (torch.minimum(time[:, None], ends) - starts).clamp(min=0.0)  # (batch, k)
    at_event = ((starts <= time[:, None]) & (time[:, None] < ends)).to(outputs)
    hazards = outputs[:, :1] + outputs[:, 1:]  # (batch, k) logarithms
    return (_power(hazards) * spent).sum(dim=1) - event * (hazards * at_event).sum(dim=1)


def risks(outputs: Floats, cuts: Sequence[float]) -> Floats:
    """Return each record's log risk (n,): its log cumulative hazard at the last cut.

    Where the baseline is the same for all records it ranks them as f does; where a model lets it
    depend on the record, this is what still ranks them.
    """
    ends = np.array([0.0, *cuts[1:]], dtype=np.float64) / cuts[-1]
    logs = outputs[:, :1].astype(np.float64) + outputs[:, 1:-1] + np.log(np.diff(ends))
    return np.logaddexp.reduce(logs, axis=1)


def survival_metrics(outputs: Floats, labels: Labels, *, cuts: Sequence[float]) -> dict[str, float]:
    """Return the ``c_index`` of (n, 1 + cuts) outputs; none where no two records compare."""
    if len(labels) == 0:
        return {}
    return finite({"c_index": c_index(risks(outputs, cuts), labels[:, 0], labels[:, 1] > 0.5)})


def _power(logs: Tensor) -> Tensor:
    """Return exp of (batch, k) logarithms, continued by its tangent beyond ``STEEP``.

    A wild step then costs much but is no infinity, and its gradient still leads back.
    """
    low = logs.clamp(max=STEEP)
    return torch.exp(low) * (1 + (logs - low))
