"""What one candidate's answers are worth beside the teacher's: accuracy, AUC, classes, fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.task_classification import classification_metrics
from .parity_intervals import (
    Difference,
    accuracy_difference,
    auc_difference,
    has_auc,
    resampled_auc,
)

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """The global model's answers on the test part, and what candidates are compared with.

    ``labels`` (n,) its answers; ``metrics`` its figures ({} without true classes, accuracy alone
    where only its answers are known); ``resampled`` its AUC in each bootstrap resample, or None.
    """

    labels: Labels
    metrics: dict[str, float]
    resampled: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One candidate's figures on the test part; None where undefined."""

    agreement: float
    accuracy: float | None
    accuracy_gain: Difference | None
    auc: float | None
    auc_gain: Difference | None
    calibration_error: float | None
    per_class: tuple[dict[str, Any], ...]


def teacher_of(answers: NDArray[Any], y: Labels | None) -> Teacher:
    """Return the teacher from its logits (n, classes) or its answers (n,), and true classes."""
    if answers.ndim == 1:
        labels = answers.astype(np.int64)
        known = {} if y is None else {"accuracy": float((labels == y).mean())}
        return Teacher(labels=labels, metrics=known, resampled=None)
    return Teacher(
        labels=answers.argmax(axis=1).astype(np.int64),
        metrics=figures_of(answers, y),
        resampled=_resampled(answers, y),
    )


def figures_of(outputs: Floats, y: Labels | None) -> dict[str, float]:
    """Return accuracy, AUC and calibration error of (n, classes) logits, those that are defined.

    The same functions as for the run's result, so that the figures are comparable.
    """
    if y is None:
        return {}
    found = classification_metrics(outputs, y)
    names = ("accuracy", "auc", "calibration_error")
    return {name: float(found[name]) for name in names if name in found}


def compare_outputs(
    outputs: Floats, teacher: Teacher, y: Labels | None, classes: Sequence[str]
) -> Figures:
    """Return the figures of a candidate's (n, classes) logits beside the teacher's."""
    labels = outputs.argmax(axis=1).astype(np.int64)
    agreement = float((labels == teacher.labels).mean())
    if y is None:
        return Figures(
            agreement=agreement,
            accuracy=None,
            accuracy_gain=None,
            auc=None,
            auc_gain=None,
            calibration_error=None,
            per_class=(),
        )
    own = figures_of(outputs, y)
    return Figures(
        agreement=agreement,
        accuracy=own["accuracy"],
        accuracy_gain=accuracy_difference(labels == y, teacher.labels == y),
        auc=own.get("auc"),
        auc_gain=_auc_gain(outputs, own, teacher, y),
        calibration_error=own.get("calibration_error"),
        per_class=tuple(by_class(labels, teacher.labels, y, classes)),
    )


def by_class(
    labels: Labels, teacher: Labels, y: Labels, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return n, both recalls and the agreement of each class; None where it does not occur."""

    def share(hits: NDArray[np.bool_], here: NDArray[np.bool_]) -> float | None:
        return float(hits[here].mean()) if here.any() else None

    return [
        {
            "class": name,
            "n": int((y == index).sum()),
            "teacher_recall": share(teacher == index, y == index),
            "recall": share(labels == index, y == index),
            "agreement": share(labels == teacher, y == index),
        }
        for index, name in enumerate(classes)
    ]


def fidelity(outputs: Floats, own: Floats) -> tuple[float, float]:
    """Return how often (n, classes) logits answer as their own fp32's, and their mean cosine.

    Two rows of zeros alone are alike, one such row and another one are not.
    """
    agreement = float((outputs.argmax(axis=1) == own.argmax(axis=1)).mean())
    first, second = outputs.astype(np.float64), own.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(axis=1)
    same = (first == second).all(axis=1)
    cosines = np.divide(products, lengths, out=same.astype(np.float64), where=lengths > 0)
    return agreement, float(np.clip(cosines, -1, 1).mean())


def _resampled(outputs: Floats, y: Labels | None) -> NDArray[np.float64] | None:
    if y is None or not has_auc(y, outputs.shape[1]):
        return None
    return resampled_auc(outputs, y)


def _auc_gain(
    outputs: Floats, own: dict[str, float], teacher: Teacher, y: Labels
) -> Difference | None:
    if "auc" not in own or "auc" not in teacher.metrics or teacher.resampled is None:
        return None
    return auc_difference(
        own["auc"] - teacher.metrics["auc"], resampled_auc(outputs, y), teacher.resampled
    )
