"""Students that keep some of a transformer's layers, and start from their teacher's weights."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
from torch import nn

from ..core.errors import InvalidInput
from ..models.ft_transformer import Block


def thinned(teacher: nn.Module, count: int) -> nn.Module:
    """Return a copy of the teacher with ``count`` of its layers, evenly spaced; all of it trains.

    The first and the last layer stay (one alone: the first). Sanh et al. 2019, section 3,
    https://arxiv.org/abs/1910.01108. Raises ``InvalidInput`` for a model without a stack of
    equal attention layers, and when it has no more than ``count``.
    """
    student = copy.deepcopy(teacher)
    name, stack = layers_of(student)
    layers = cast("Any", student.get_submodule(name))
    if not 1 <= count < len(stack):
        raise InvalidInput(
            f"[edge] student = 'layers:{count}', and the global model has {len(stack)}",
            why="a student has fewer layers than its teacher, and at least one",
            cure=f'write "layers:{max(1, len(stack) // 2)}"',
        )
    kept = np.linspace(stack[0], stack[-1], count).round().astype(int).tolist()
    chosen = [i for i in range(len(layers)) if i not in stack or i in kept]
    student.set_submodule(name, type(layers)(*_as_made(layers, [layers[i] for i in chosen])))
    for module in student.modules():
        config = getattr(module, "config", None)
        if getattr(config, "num_hidden_layers", None) == len(stack):
            cast("Any", config).num_hidden_layers = count
    return student.requires_grad_(True)


def layers_of(model: nn.Module) -> tuple[str, range]:
    """Return where a model's largest stack of equal attention layers is, and which they are there.

    Raises ``InvalidInput`` without one.
    """
    found = [
        (sum(v.numel() for i in stack for v in module[i].parameters()), name, stack)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and (stack := _stack(module))
    ]
    if not found:
        raise InvalidInput(
            "[edge] student = 'layers:N' for a model without a stack of attention layers",
            why="only equal layers, one after the other, can be left out",
            cure='write student = "auto"',
        )
    return max(found, key=lambda each: each[:2])[1:]


def layer_count(model: nn.Module) -> int:
    """Return how many layers that stack has; raises as ``layers_of``."""
    return len(layers_of(model)[1])


def _stack(module: nn.ModuleList | nn.Sequential) -> range:
    """Return the longest run of two or more equal attention layers, an empty one without."""
    shapes = [
        tuple(value.shape for value in layer.parameters()) if _attends(layer) else None
        for layer in module
    ]
    best, start = range(0), 0
    for i, shape in enumerate(shapes):
        start = i if i == 0 or shape != shapes[start] else start
        if shape is not None and i + 1 - start > len(best):
            best = range(start, i + 1)
    return best if len(best) > 1 else range(0)


def _attends(layer: nn.Module) -> bool:
    return any(
        isinstance(part, Block) or "attention" in type(part).__name__.lower()
        for part in layer.modules()
    )


def _as_made(layers: nn.Module, kept: list[nn.Module]) -> list[Any]:
    return [kept] if isinstance(layers, nn.ModuleList) else list(kept)
