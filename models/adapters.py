"""What of a model trains, and how that part becomes one flat vector and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..core.errors import InvalidInput
from .registry import check_trainable


def select_trainable(model: nn.Module, trainable: str) -> dict[str, nn.Parameter]:
    """Freeze all but the named part and return that part's parameters in module order.

    ``head``: the head; ``bias``: the head and every bias (BitFit, Ben Zaken et al. 2022, where
    the new head always trains); ``all``: everything. Sets ``requires_grad``. Raises
    ``NotBuiltYet`` for parts of later versions and ``InvalidInput`` for unknown ones.
    """
    check_trainable(trainable)
    chosen = {
        name: parameter
        for name, parameter in model.named_parameters()
        if trainable == "all"
        or name.startswith("head.")
        or (trainable == "bias" and name.endswith(".bias"))
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return chosen


def read_vector(model: nn.Module, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the named parameters, flattened row by row and joined: (d,) float32, a copy."""
    with torch.no_grad():
        parts = [model.get_parameter(name).detach().reshape(-1).cpu() for name in names]
        return torch.cat(parts).to(torch.float32).numpy().copy()


def write_vector(model: nn.Module, names: Sequence[str], vector: NDArray[np.float32]) -> None:
    """Set the named parameters from a (d,) vector; raises ``InvalidInput`` if d is wrong."""
    parameters = [model.get_parameter(name) for name in names]
    expected = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (expected,):
        raise InvalidInput(
            f"A vector of shape {vector.shape} was given for {expected} coordinates",
            why="the trainable parameters and the vector must agree on the layout",
            cure="use the same model and the same 'trainable' on both sides",
        )
    flat = torch.from_numpy(np.array(vector, dtype=np.float32))
    offset = 0
    with torch.no_grad():
        for parameter in parameters:
            part = flat[offset : offset + parameter.numel()]
            parameter.copy_(part.reshape(parameter.shape))
            offset += parameter.numel()
