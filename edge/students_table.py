"""Students of tables: small multilayer perceptrons behind their teacher's own first layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from ..core.errors import InvalidInput
from ..models.heads import Headed

HIDDEN: Mapping[str, int] = MappingProxyType({"tiny": 16, "small": 32, "base": 64})
LAYERS = 2
LEAST_HIDDEN, MOST_HIDDEN = 2, 1024


def mlp_student(
    teacher_preprocess: nn.Module, shape: tuple[int, ...], classes: int, *, size: str | int
) -> Headed:
    """Return an untrained net of two hidden layers, by size or by units of each.

    What the sites have fitted together (means, deviations, categories that are kept) comes along
    with the teacher's first layer. Raises ``InvalidInput`` for records that are no rows.
    """
    preprocess = copy.deepcopy(teacher_preprocess)
    with torch.no_grad():
        seen = preprocess(torch.zeros(1, *shape))
    if seen.dim() != 2:
        raise InvalidInput(
            f"a multilayer student cannot read records of shape {shape}",
            why="the global model's first layer makes no rows of them",
            cure='write [edge] student = "auto"',
        )
    hidden, inputs = HIDDEN[size] if isinstance(size, str) else size, int(seen.shape[1])
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(inputs, hidden), nn.ReLU()]
        inputs = hidden
    return Headed(preprocess, nn.Sequential(*layers), nn.Linear(hidden, classes))
