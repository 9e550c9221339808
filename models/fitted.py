"""Constants that all sites fit together: where they stand in a model, and in its vector's tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from ..core.layout import Layout, Vector
from ..core.plan import Plan
from . import registry

if TYPE_CHECKING:
    from torch import nn

MEAN, SCALE = "preprocess.standardise.mean", "preprocess.standardise.scale"
KEPT = "preprocess.kept"
TEMPERATURE, OFFSET = "output.temperature", "output.offset"

MOST_TEMPERATURE, MOST_OFFSET = 1e3, 1e3
"""Largest fitted values that make sense for logits: a site takes in no others."""


def build_for(plan: Plan) -> nn.Module:
    """Return the plan's open model in eval mode, with a place for each constant to be fitted.

    Raises as ``registry.build``.
    """
    return attach(registry.build(plan.model), plan)


def attach(model: nn.Module, plan: Plan) -> nn.Module:
    """Put the layers in place whose constants the plan has fitted; they change nothing yet.

    ``preprocess.standardise`` and ``preprocess.kept`` for [statistics], ``output`` for
    [calibration]; a model that has them already stays as it is. Raises ``InvalidInput`` for a
    model without such places.
    """
    from .preprocess import Standardise, TablePreprocess

    statistics, first = plan.statistics, getattr(model, "preprocess", None)
    if statistics is not None:
        if not isinstance(first, TablePreprocess):
            raise _no_place(model, "[statistics]", "its first layer is no table's")
        if statistics.normalise and not isinstance(first.standardise, Standardise):
            first.standardise = _like(model, Standardise(first.numbers, clip=statistics.clip))
        if statistics.vocabulary:
            first.register_buffer("kept", first.get_buffer("kept"), persistent=True)
    if plan.calibration is not None:
        _attach_output(model, len(plan.model.classes))
    return model


def _attach_output(model: nn.Module, classes: int) -> None:
    from .calibration import Calibrate

    if not hasattr(model, "output"):
        raise _no_place(model, "[calibration]", "it has no last layer named output")
    if not isinstance(model.output, Calibrate):
        model.output = _like(model, Calibrate(classes))


def fitted_layout(model: nn.Module, plan: Plan) -> Layout:
    """Return names and shapes of the fitted constants, empty without [statistics] and such.

    ``model`` is one that ``attach`` has prepared for this plan.
    """
    wanted: list[str] = []
    if plan.statistics is not None:
        wanted += [MEAN, SCALE] if plan.statistics.normalise else []
        wanted += [KEPT] if plan.statistics.vocabulary else []
    if plan.calibration is not None:
        wanted += [TEMPERATURE, OFFSET]
    return Layout.of({name: tuple(model.get_buffer(name).shape) for name in wanted})


def layouts(model: nn.Module, plan: Plan) -> tuple[Layout, Layout, Layout]:
    """Return what trains (d), what is fitted (e), and both after each other (d + e).

    Freezes what does not train. Updates have the first layout, the model that travels the last.
    """
    from .adapters import select_trainable

    trainable = select_trainable(model, plan.model.trainable)
    first = Layout.of({name: tuple(value.shape) for name, value in trainable.items()})
    fitted = fitted_layout(model, plan)
    shapes = zip((*first.names, *fitted.names), (*first.shapes, *fitted.shapes), strict=True)
    return first, fitted, Layout.of(dict(shapes))


def with_values(fitted: Layout, tail: Vector, values: dict[str, NDArray[np.float64]]) -> Vector:
    """Return the tail (e,) with these constants set, by name; those that it lacks are left out."""
    made = np.array(tail, dtype=np.float32)
    for name, part in fitted.split(made).items():
        if name in values:
            part[...] = np.asarray(values[name]).reshape(part.shape)
    return made + np.float32(0)  # no negative zero: equal constants are equal bytes


def tail_fault(fitted: Layout, tail: Vector, *, least_scale: float, calibrated: bool) -> str:
    """Return what is wrong with a finite tail (e,) that came from outside, '' when it may be used.

    A mean lies in [-1, 1], a scale in [``least_scale``, 1], a category is kept or not; threshold
    and temperature are the identity until they are fitted (``calibrated``).
    """
    parts = fitted.split(tail)
    rules = {
        MEAN: lambda v: np.all(np.abs(v) <= 1),
        SCALE: lambda v: np.all((v >= np.float32(least_scale)) & (v <= 1)),
        KEPT: lambda v: np.all((v == 0) | (v == 1)),
        TEMPERATURE: lambda v: (
            np.all((v > 1 / MOST_TEMPERATURE) & (v < MOST_TEMPERATURE))
            if calibrated
            else np.all(v == 1)
        ),
        OFFSET: lambda v: np.all(np.abs(v) <= (MOST_OFFSET if calibrated else 0)),
    }
    return next((name for name, part in parts.items() if not rules[name](part)), "")


def _like(model: nn.Module, layer: nn.Module) -> nn.Module:
    """Return the layer on the model's device and in its mode."""
    first = next(model.parameters(), None)
    if first is not None:
        layer.to(first.device)
    return layer.train(model.training)


def _no_place(model: nn.Module, table: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"the plan has {table}, and the model {type(model).__name__} has no place for it",
        why=why,
        cure=f"remove {table}, or use a model that has one",
    )
