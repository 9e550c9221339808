"""What a model is trained for: the plan's task by name, built in or from another package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidInput, NotAvailable
from ..core.plugins import is_plugin, load_plugin
from .task_base import Task, finite

if TYPE_CHECKING:
    from ..core.plan import ModelRef

_NEEDED = ("loss", "metrics", "outputs")


def task(ref: ModelRef) -> Task:
    """Return the plan's task, made for its classes, weights and target.

    Raises ``InvalidInput`` for an unknown task or one that the plan's model table does not
    describe, and ``NotAvailable`` for a plug-in that is not installed.
    """
    if is_plugin(ref.task):
        return _plugged(ref)
    match ref.task:
        case "classification":
            from .task_classification import classification

            return classification(ref)
        case "multilabel":
            from .task_multilabel import multilabel

            return multilabel(ref)
        case "regression":
            from .task_regression import regression

            return regression(ref)
        case "survival":
            from .task_survival import survival

            return survival(ref)
        case "segmentation":
            from .task_segmentation import segmentation

            return segmentation(ref)
        case _:
            raise _unknown(ref.task)


def outputs_of(ref: ModelRef) -> int:
    """Return how many outputs a model of this plan has; imports no torch. Raises as ``task``."""
    if is_plugin(ref.task):
        return int(_plugin(ref.task).outputs(ref))
    match ref.task:
        case "classification" | "multilabel" | "segmentation":
            return len(ref.classes)
        case "regression":
            return 1
        case "survival":
            return 1 + len(ref.target)
        case _:
            raise _unknown(ref.task)


def _unknown(name: str) -> InvalidInput:
    return InvalidInput(
        f"There is no task '{name}'",
        why="the task decides outputs, loss and metrics",
        cure="use classification, multilabel, regression, survival or segmentation",
    )


def _plugin(name: str) -> Any:
    """Return another package's task; raises ``NotAvailable`` where a part of it is missing."""
    found = load_plugin("tasks", name)
    missing = [part for part in _NEEDED if not callable(getattr(found, part, None))]
    if missing:
        raise NotAvailable(
            f"'{name}' is no task",
            why=f"it lacks {' and '.join(missing)}",
            cure="a task offers outputs(ref), loss(outputs, labels) and metrics(outputs, labels)",
        )
    return found


def _plugged(ref: ModelRef) -> Task:
    """Return another package's task; of its metrics only those whose names are ours."""
    found = _plugin(ref.task)
    return Task(
        name=ref.task,
        outputs=int(found.outputs(ref)),
        loss=found.loss,
        metrics=lambda outputs, labels: finite(found.metrics(outputs, labels)),
        right=getattr(found, "right", None),
    )
