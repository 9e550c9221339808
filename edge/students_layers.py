"""Students that keep some of a transformer's layers, and start from their teacher's weights."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
from torch import nn

from ..core.errors import InvalidInput


def thinned(teacher: nn.Module, count: int) -> nn.Module:
    """Return a copy of the teacher with ``count`` of its layers, evenly spaced; all of it trains.

    The first and the last layer stay (one alone: the first). Sanh et al. 2019, section 3,
    https://arxiv.org/abs/1910.01108. Raises ``InvalidInput`` for a model without a stack of
    equal attention layers, and when it has no more than ``count``.
    """
    student = copy.deepcopy(teacher)
    name = layers_of(student)
    layers = cast("Any", student.get_submodule(name))
    if not 1 <= count < len(layers):
        raise InvalidInput(
            f"[edge] student = 'layers:{count}', and the global model has {len(layers)}",
            why="a student has fewer layers than its teacher, and at least one",
            cure=f'write "layers:{max(1, len(layers) // 2)}"',
        )
    kept = np.linspace(0, len(layers) - 1, count).round().astype(int).tolist()
    student.set_submodule(name, type(layers)(*_as_made(layers, [layers[i] for i in kept])))
    for module in student.modules():
        config = getattr(module, "config", None)
        if getattr(config, "num_hidden_layers", None) == len(layers):
            cast("Any", config).num_hidden_layers = count
    return student.requires_grad_(True)


def layers_of(model: nn.Module) -> str:
    """Return where a model's stack of equal attention layers is; raises ``InvalidInput``."""
    found = [
        (sum(value.numel() for value in module.parameters()), name)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and _is_stack(module)
    ]
    if not found:
        raise InvalidInput(
            "[edge] student = 'layers:N' for a model without a stack of attention layers",
            why="only equal layers, one after the other, can be left out",
            cure='write student = "auto"',
        )
    return max(found)[1]


def layer_count(model: nn.Module) -> int:
    """Return how many layers that stack has; raises as ``layers_of``."""
    return len(cast("Any", model.get_submodule(layers_of(model))))


def _is_stack(module: nn.ModuleList | nn.Sequential) -> bool:
    shapes = [tuple(value.shape for value in layer.parameters()) for layer in module]
    attends = all(
        any("attention" in type(part).__name__.lower() for part in layer.modules())
        for layer in module
    )
    return len(shapes) > 1 and len(set(shapes)) == 1 and attends


def _as_made(layers: nn.Module, kept: list[nn.Module]) -> list[Any]:
    return [kept] if isinstance(layers, nn.ModuleList) else list(kept)
