"""What of a model trains, and how that part becomes one flat vector and back."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import InvalidInput
from ..privacy.readiness import check, may_train
from .blocks import NORMS, last_blocks
from .lora import MARK, rank_of
from .registry import check_trainable

_LAST = re.compile(r"last:([1-9][0-9]*)")


def select_trainable(model: nn.Module, trainable: str) -> dict[str, nn.Parameter]:
    """Freeze all but the named part and return that part's parameters in module order.

    ``head``: the head; ``bias``: the head and every bias (BitFit, Ben Zaken et al. 2022, where
    the new head always trains); ``norm``: the head and the scales and shifts of its norms;
    ``lora:R``: the head and the adapters; ``last:N``: the head and the last N blocks
    (``blocks.last_blocks``); ``all``: everything that can train record by record. Sets
    ``requires_grad``. Raises ``InvalidInput`` with every obstacle and its cure.
    """
    chosen = trainable_names(model, trainable)
    if problems := check(model, chosen):
        raise InvalidInput(f"trainable = '{trainable}' cannot train this model", problems)
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen)
    return {name: parameters[name] for name in chosen}


def trainable_names(model: nn.Module, trainable: str) -> list[str]:
    """Return the names of what trains, in module order; the model stays as it is.

    Raises ``InvalidInput`` for an unknown choice and for one that this model has nothing of.
    """
    check_trainable(trainable)
    able = set(may_train(model))
    head = [name for name, _ in model.named_parameters() if name.startswith("head.")]
    part = {name for name in _part(model, trainable) if name in able}
    if not part and trainable not in ("head", "bias", "all"):
        raise InvalidInput(
            f"trainable = '{trainable}' finds nothing to train in this model",
            why=_WHY[trainable.partition(":")[0]],
            cure='write trainable = "head", "bias" or "all"',
        )
    part.update(head)
    return [name for name, _ in model.named_parameters() if name in part]


_WHY = {
    "norm": "it has no norm whose scale may train: BatchNorm is frozen, for it mixes records",
    "lora": "adapters are put in when a plan's model is built, beside layers before the head",
    "last": "it has no layers before the head that can train",
}


def _part(model: nn.Module, trainable: str) -> list[str]:
    """Return the names that a choice means, whether or not they can train."""
    every = [name for name, _ in model.named_parameters()]
    if trainable == "all":
        return every
    if trainable == "bias":
        return [name for name in every if name.endswith(".bias")]
    if trainable == "norm":
        norms = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
        return [f"{norm}.{key}" for norm in norms for key in ("weight", "bias")]
    if rank_of(trainable):
        return [name for name in every if MARK in name]
    if last := _LAST.fullmatch(trainable):
        starts = tuple(f"{name}." for name in last_blocks(model, int(last[1])))
        return [name for name in every if name.startswith(starts)] if starts else []
    return []


def read_vector(model: nn.Module, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the named parameters or buffers, flattened by rows and joined: (d,) float32, a copy.

    Raises ``InvalidInput`` for a name that the model does not have.
    """
    with torch.no_grad():
        parts = [_tensor(model, name).detach().reshape(-1).cpu() for name in names]
        return torch.cat(parts).to(torch.float32).numpy().copy()


def write_vector(model: nn.Module, names: Sequence[str], vector: NDArray[np.float32]) -> None:
    """Set the named parameters or buffers from a (d,) vector.

    Raises ``InvalidInput`` if d is wrong or the model does not have a name.
    """
    tensors = [_tensor(model, name) for name in names]
    expected = sum(tensor.numel() for tensor in tensors)
    if vector.shape != (expected,):
        raise InvalidInput(
            f"A vector of shape {vector.shape} was given for {expected} coordinates",
            why="the trainable parameters and the vector must agree on the layout",
            cure="use the same model and the same 'trainable' on both sides",
        )
    flat = torch.from_numpy(np.array(vector, dtype=np.float32))
    offset = 0
    with torch.no_grad():
        for tensor in tensors:
            part = flat[offset : offset + tensor.numel()]
            tensor.copy_(part.reshape(tensor.shape))
            offset += tensor.numel()


def _tensor(model: nn.Module, name: str) -> Tensor:
    """Return a parameter, or a buffer of that name: constants that sites have fitted together."""
    owner, _, key = name.rpartition(".")
    try:
        module = model.get_submodule(owner)
    except AttributeError:
        module = None
    if module is not None:
        for held in (module._parameters, module._buffers):
            if (found := held.get(key)) is not None:
                return found
    raise InvalidInput(
        f"The model has no tensor '{name}'",
        why="a vector is written by name",
        cure="use the same model and the same plan on both sides",
    )
