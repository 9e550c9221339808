"""``[hardware] compile``: torch compiles the frozen part of the model, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidInput, NotAvailable


def compile_frozen(model: nn.Module) -> tuple[str, ...]:
    """Compile the largest modules in which nothing trains; return their names.

    What trains stays as it is: the clipping engine follows its layers one by one. A module that
    cannot be compiled as a whole, or for ever new shapes, raises ``NotAvailable`` when it first
    runs, instead of running uncompiled in silence. Raises ``InvalidInput`` when nothing is frozen.
    """
    found = dict(_frozen(model))
    if not found:
        raise InvalidInput(
            "[hardware] compile is set, but no part of this model is frozen",
            why="layers that train are followed one by one and are never compiled",
            cure="write compile = false",
        )
    for name, module in found.items():
        module.forward = _loud(name, module.forward)
    return tuple(found)


def _frozen(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost modules that have parts and parameters, none of which trains."""
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        parameters = list(child.parameters())
        if not parameters or not any(True for _ in child.children()):
            continue
        if any(parameter.requires_grad for parameter in parameters):
            yield from _frozen(child, path)
        else:
            yield path, child


def _loud(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(forward, fullgraph=True)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise NotAvailable(
                f"torch cannot compile '{name}' here",
                why=f"{type(error).__name__} in torch.compile",
                cure="write [hardware] compile = false, or install a C++ compiler",
            ) from error

    return call
