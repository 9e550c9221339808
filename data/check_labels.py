"""Whether labels have the form and the range that the plan's task asks for."""

from __future__ import annotations

import numpy as np

from ..core.errors import Problem
from ..core.plan_model import ModelRef
from .growing import chunks_of
from .site_data import IGNORED, Labels


def label_problem(y: Labels, model: ModelRef, where: str) -> list[Problem]:
    """Return what is wrong with a part's labels, at most one problem; it names no value."""
    match model.task:
        case "classification":
            return _classes(y, len(model.classes), where)
        case "multilabel":
            return _multilabel(y, len(model.classes), where)
        case "regression":
            shaped = y.ndim == 1 and y.dtype.kind in "fiu"
            return [] if shaped and np.isfinite(y).all() else [_no_number(where)]
        case "survival":
            return _survival(y, where)
        case "segmentation":
            return _masks(y, model, where)
        case _:  # a plug-in's task knows its own labels; what is no number trains nothing
            finite = y.dtype.kind in "iub" or (y.dtype.kind == "f" and bool(np.isfinite(y).all()))
            return [] if finite else [_no_number(where)]


def _classes(y: Labels, classes: int, where: str) -> list[Problem]:
    if y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and not ((y < 0) | (y >= classes)).any():
        return []
    return [
        Problem(
            where=where,
            what="a label is not a class of the plan",
            why=f"The plan has classes 0 to {classes - 1}",
            cure="map the labels to the plan's [model] classes",
        )
    ]


def _multilabel(y: Labels, classes: int, where: str) -> list[Problem]:
    if (
        y.ndim == 2
        and y.shape[1] == classes
        and y.dtype.kind in "fiub"
        and np.isin(y, (0, 1)).all()
    ):
        return []
    return [
        Problem(
            where=where,
            what=f"the labels are not {classes} columns of 0 and 1",
            why="Each class is there or not",
            cure="write one column per class of the plan",
        )
    ]


def _survival(y: Labels, where: str) -> list[Problem]:
    if y.ndim == 2 and y.shape[1] == 2 and y.dtype.kind in "fiu":
        times, events = y[:, 0], y[:, 1]
        if np.isfinite(times).all() and (times >= 0).all() and np.isin(events, (0, 1)).all():
            return []
    return [
        Problem(
            where=where,
            what="the labels are not a time of 0 or more, and 1 or 0 for the event",
            why="Survival needs both",
            cure="name the columns in [data] label and event",
        )
    ]


def _masks(y: Labels, model: ModelRef, where: str) -> list[Problem]:
    classes = len(model.classes)
    shaped = y.ndim == 3 and np.issubdtype(y.dtype, np.integer)
    if shaped and (not model.image or y.shape[1:] == model.image[:2]):
        good = all(
            bool((((y[part] >= 0) & (y[part] < classes)) | (y[part] == IGNORED)).all())
            for part in chunks_of(y)
        )
        if good:
            return []
    return [
        Problem(
            where=where,
            what="a mask has another shape than the images, or a pixel that is no class",
            why=f"The plan has classes 0 to {classes - 1}, and {IGNORED} is not labelled",
            cure="map the values in [data.labels]",
        )
    ]


def _no_number(where: str) -> Problem:
    return Problem(
        where=where,
        what="a label is not one finite number",
        why="The task answers a number",
        cure="correct those labels, or leave the records out",
    )
