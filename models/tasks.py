"""What a model is trained for: the loss per record, and the metrics that are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, NotBuiltYet

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.floating]
Labels = NDArray[np.int64]
BINS = 10  # of the calibration error, equal widths
LATER = ("multilabel", "regression", "survival", "segmentation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A loss per record, so that each record's gradient can be clipped, and its metrics.

    ``loss`` maps (batch, classes) logits and (batch,) int64 labels to (batch,) losses in nats;
    ``metrics`` maps the same as numpy arrays to named figures, leaving out undefined ones.
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: Callable[[Floats, Labels], dict[str, float]]


def task(name: str) -> Task:
    """Return a task by name; raises ``NotBuiltYet`` for later ones, else ``InvalidInput``."""
    if name == "classification":
        return Task(name=name, loss=cross_entropy, metrics=classification_metrics)
    if name in LATER:
        raise NotBuiltYet(
            f"The task '{name}' is not built yet",
            why="this version fine-tunes classifiers",
            cure="use task = 'classification'",
        )
    raise InvalidInput(
        f"There is no task '{name}'",
        why="the task decides loss and metrics",
        cure="use task = 'classification'",
    )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log likelihood of each record: (batch,) nats."""
    from torch.nn.functional import cross_entropy as negative_log_likelihood

    return negative_log_likelihood(logits, labels, reduction="none")


def classification_metrics(logits: Floats, labels: Labels) -> dict[str, float]:
    """Return the metrics of (n, classes) logits against (n,) labels.

    ``accuracy`` of the largest logit (two classes: threshold .5), ``macro_accuracy`` the mean
    recall over the classes that occur, ``majority`` the share of the most frequent class (what
    a constant answer reaches), ``calibration_error``; with two classes that both occur also
    ``auc`` and ``average_precision`` of class 1. No records: no metrics.
    """
    if len(labels) == 0:
        return {}
    from sklearn.metrics import accuracy_score, average_precision_score, recall_score, roc_auc_score

    predicted = logits.argmax(axis=1)
    present, counts = np.unique(labels, return_counts=True)
    recall = recall_score(labels, predicted, labels=present, average="macro")
    figures = {
        "accuracy": accuracy_score(labels, predicted),
        "macro_accuracy": recall,
        "majority": counts.max() / len(labels),
        "calibration_error": calibration_error(_softmax(logits), labels),
    }
    if logits.shape[1] == 2 and len(present) == 2:
        score = logits[:, 1].astype(np.float64) - logits[:, 0]
        figures["auc"] = roc_auc_score(labels, score)
        figures["average_precision"] = average_precision_score(labels, score)
    return {name: float(value) for name, value in figures.items()}


def calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error of (n, classes) probabilities, in 0..1.

    Guo et al., ICML 2017, equation 3: the mean of |accuracy - confidence| over bins of
    confidence, weighted by their share of the records; ten bins of equal width.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=1, keepdims=True)
