"""How good a model is on a set of records: logits in batches, metrics by task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .tasks import Task

BATCH = 1024  # records at once


def logits(model: nn.Module, x: NDArray[Any]) -> NDArray[np.float32]:
    """Return the (n, classes) logits of (n, ...) raw values; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [
                model(torch.from_numpy(np.array(x[start : start + BATCH], dtype=np.float32)))
                for start in range(0, max(1, len(x)), BATCH)
            ]
    finally:
        model.train(was_training)
    return torch.cat(parts).to(torch.float32).numpy()


def evaluate(
    model: nn.Module, task: Task, x: NDArray[Any], y: NDArray[np.int64]
) -> dict[str, float]:
    """Return the task's metrics of the model on (n, ...) raw values and (n,) labels.

    A record whose logits are not finite (a NaN in it, say) counts as answered with all zeros.
    """
    return task.metrics(np.nan_to_num(logits(model, x), nan=0.0, posinf=0.0, neginf=0.0), y)
