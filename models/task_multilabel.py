"""Multi-label classification: each class is there or not, for itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import metrics
from .task_base import Floats, Labels, Rights, Task, finite

if TYPE_CHECKING:
    from ..core.plan import ModelRef


def multilabel(ref: ModelRef) -> Task:
    """Return the task of saying of each class whether it is there."""
    weights = torch.tensor(ref.class_weights) if ref.class_weights else None
    return Task(
        name="multilabel",
        outputs=len(ref.classes),
        loss=binary_cross_entropy
        if weights is None
        else partial(binary_cross_entropy, weights=weights),
        metrics=multilabel_metrics,
        right=right_sets,
    )


def binary_cross_entropy(outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return each record's negative log likelihood, a mean over its classes: (batch,) nats.

    ``outputs`` (batch, classes) logits, ``labels`` (batch, classes) of 0 and 1; ``weights``
    (classes,) public factors of each class, 1 by default.
    """
    losses = functional.binary_cross_entropy_with_logits(
        outputs, labels.to(outputs), reduction="none"
    )
    return (losses if weights is None else losses * weights.to(outputs)).mean(dim=1)


def right_sets(outputs: Floats, labels: Labels) -> Rights:
    """Return (n,) whether every class of a record is answered rightly."""
    return ((outputs > 0) == (labels > 0.5)).all(axis=1)


def multilabel_metrics(outputs: Floats, labels: Labels) -> dict[str, float]:
    """Return the metrics of (n, classes) logits against (n, classes) of 0 and 1.

    ``accuracy`` is the share of right single answers, ``majority`` what the more frequent answer
    to each class reaches, ``balanced_accuracy`` the mean of sensitivity and specificity over
    the classes that have both, ``auc`` and ``average_precision`` means over the same classes.
    No records: no metrics.
    """
    if len(labels) == 0:
        return {}
    truth, called = labels > 0.5, outputs > 0
    share = truth.mean(axis=0)
    figures = {
        "accuracy": float((truth == called).mean()),
        "majority": float(np.maximum(share, 1 - share).mean()),
    }
    both = np.flatnonzero((share > 0) & (share < 1))
    if len(both):
        columns = [(outputs[:, c], truth[:, c], called[:, c]) for c in both]
        means = {
            "balanced_accuracy": [metrics.balanced_accuracy(c, t, 2) for _, t, c in columns],
            "auc": [metrics.auc(o, t) for o, t, _ in columns],
            "average_precision": [metrics.average_precision(o, t) for o, t, _ in columns],
        }
        figures |= {name: float(np.mean(values)) for name, values in means.items()}
    return finite(figures)
