"""Classification: one of two or more classes per record."""

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


def classification(ref: ModelRef) -> Task:
    """Return the task of telling the plan's classes apart."""
    weights = torch.tensor(ref.class_weights) if ref.class_weights else None
    return Task(
        name="classification",
        outputs=len(ref.classes),
        loss=cross_entropy if weights is None else partial(cross_entropy, weights=weights),
        metrics=classification_metrics,
        right=right_classes,
    )


def cross_entropy(outputs: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the negative log likelihood of each record: (batch,) nats.

    ``outputs`` (batch, classes) logits, ``labels`` (batch,) int64; ``weights`` (classes,) public
    factors of each class, 1 by default. They are not divided by their sum over the batch, which
    would let one record change another's loss.
    """
    factors = None if weights is None else weights.to(outputs)
    return functional.cross_entropy(outputs, labels, weight=factors, reduction="none")


def right_classes(outputs: Floats, labels: Labels) -> Rights:
    """Return (n,) whether the largest of (n, classes) logits is at the label's place."""
    return outputs.argmax(axis=1) == labels


def classification_metrics(outputs: Floats, labels: Labels) -> dict[str, float]:
    """Return the metrics of (n, classes) logits against (n,) labels.

    ``accuracy`` of the largest logit (two classes: threshold .5 of the shipped model),
    ``balanced_accuracy`` the mean recall over the classes that occur, ``majority`` the share of
    the most frequent class (what a constant answer reaches), ``calibration_error``. Two classes:
    also what ``binary_metrics`` gives. More: ``auc`` and ``average_precision`` as means over the
    classes, each against the rest, where every class occurs. No records: no metrics.
    """
    if len(labels) == 0:
        return {}
    classes, chances = outputs.shape[1], metrics.softmax(outputs)
    counts = np.bincount(labels, minlength=classes)
    figures = {
        "accuracy": float(right_classes(outputs, labels).mean()),
        "balanced_accuracy": metrics.balanced_accuracy(outputs.argmax(axis=1), labels, classes),
        "majority": counts.max() / len(labels),
        "calibration_error": metrics.calibration_error(chances, labels),
    }
    if classes == 2:
        score = outputs[:, 1].astype(np.float64) - outputs[:, 0]
        figures |= binary_metrics(score, chances[:, 1], labels)
    elif counts.all():
        rest = [(chances[:, c], labels == c) for c in range(classes)]
        figures["auc"] = float(np.mean([metrics.auc(*each) for each in rest]))
        figures["average_precision"] = float(
            np.mean([metrics.average_precision(*each) for each in rest])
        )
    return finite(figures)


def binary_metrics(score: Floats, chance: Floats, labels: Labels) -> dict[str, float]:
    """Return what two classes have besides, of (n,) log odds and chances of class 1.

    ``sensitivity`` and ``specificity``, the shares of class 1 and of class 0 that are found;
    ``positive_rate``, the share of records that are called class 1; ``brier``, the mean squared
    error of the chance; where both classes occur ``auc`` and ``average_precision`` of class 1.
    """
    called, truth = score > 0, labels == 1
    figures = {
        "positive_rate": float(called.mean()),
        "brier": float(np.square(chance - truth).mean()),
    }
    if truth.any():
        figures["sensitivity"] = float(called[truth].mean())
    if not truth.all():
        figures["specificity"] = float(1 - called[~truth].mean())
    if truth.any() and not truth.all():
        figures["auc"] = metrics.auc(score, labels)
        figures["average_precision"] = metrics.average_precision(score, labels)
    return figures
