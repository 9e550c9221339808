"""Low-rank adapters beside frozen layers (Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from torch import nn

from ..core.errors import InvalidInput, NotAvailable

MARK = "lora_"
_RANKED = re.compile(r"lora:([1-9][0-9]*)")


def rank_of(trainable: str) -> int:
    """Return R of ``lora:R``, 0 for anything else that trains."""
    found = _RANKED.fullmatch(trainable)
    return int(found[1]) if found else 0


def inject(model: nn.Module, rank: int) -> nn.Module:
    """Return ``model`` with adapters of that rank in its body; all else in the body is frozen.

    They are peft's: a thin layer down, one up that starts at zero, and their product is added
    with the weight 2. For a convolution the first keeps its kernel and the second is 1 x 1. In
    transformers the attention layers that peft names for that architecture get one, in other
    nets every linear layer and every convolution that is not grouped. Nothing is dropped at
    random. Raises ``NotAvailable`` without peft and ``InvalidInput`` when no layer can have one.
    """
    if find_spec("peft") is None:
        raise NotAvailable(
            "trainable = 'lora:R' is not available here",
            why="the package peft is not installed",
            cure="pip install 'collegium[hf]'",
        )
    from peft import LoraConfig, inject_adapter_in_model

    targets = places(model)
    if not targets:
        raise InvalidInput(
            "This model has no layer that an adapter could stand beside",
            why="adapters go beside linear layers and convolutions before the head",
            cure='write trainable = "head"',
        )
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    adapted = inject_adapter_in_model(config, model)
    for name, value in adapted.named_parameters():
        value.requires_grad_(MARK in name or name.startswith("head."))
    return adapted


def places(model: nn.Module) -> list[str]:
    """Return the names of the layers that get an adapter, in module order."""
    every = [
        name
        for name, module in model.named_modules()
        if name.startswith("body.") and _can_have_one(module)
    ]
    suffixes = _attention(model)
    named = [name for name in every if name.rpartition(".")[2] in suffixes]
    return named or every


def _can_have_one(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1
    return isinstance(module, nn.Linear)


def _attention(model: nn.Module) -> frozenset[str]:
    """Return the last names of the layers that peft adapts in this kind of transformer."""
    kinds = {
        str(config.model_type)
        for module in model.modules()
        if (config := getattr(module, "config", None)) is not None and hasattr(config, "model_type")
    }
    if not kinds:
        return frozenset()
    from peft.utils import constants

    known: Any = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    return frozenset(name for kind in kinds for name in known.get(kind, ()))
