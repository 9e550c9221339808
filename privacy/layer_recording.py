"""One forward and one activation-only backward: what each trained layer saw, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..core.errors import InvalidInput
from .layers import Layer


@dataclass(frozen=True, slots=True)
class Use:
    """One layer's input ``a`` and the gradient ``g`` of its output, a leading row per record."""

    layer: Layer
    a: Tensor
    g: Tensor

    def masked(self, keep: Tensor) -> Use:
        """Return this use with the rows of ``keep`` (n,) False set to zero."""
        return Use(self.layer, _masked(self.a, keep), _masked(self.g, keep))

    def finite(self) -> Tensor:
        """Return (n,) whether all of a record's numbers are finite."""
        good = torch.isfinite(self.g).flatten(1).all(1)
        return good & torch.isfinite(self.a).flatten(1).all(1)


@dataclass(slots=True)
class _Call:
    """What a hook saw: the input, its version then, and where the output stands in the graph."""

    a: Tensor
    version: int
    edge: GradientEdge


def record(
    layers: Sequence[Layer], losses: Callable[[], Tensor], weights: Tensor | None, count: int
) -> tuple[list[Use], Tensor]:
    """Return the use of every layer and the (count,) losses; ``losses`` runs the model once.

    ``weights`` (count,) multiply the losses (None: ones). Weight gradients are never formed, and
    nothing below the first trained layer is differentiated. Raises ``InvalidInput`` when a layer
    is called never or twice, or otherwise cannot be followed. (Bu et al., 2210.00038)
    """
    watch = _Watch(count)
    with watch.over(layers), torch.enable_grad():
        values = losses()
        _check_losses(values, count)
        gradients = torch.autograd.grad(
            values,
            [watch.call_of(layer).edge for layer in layers],
            torch.ones_like(values) if weights is None else weights.to(values.dtype),
            allow_unused=True,
        )
    found = zip(layers, gradients, strict=True)
    return [_use(layer, watch.call_of(layer), g) for layer, g in found], values.detach()


class _Watch:
    """The hooks of one forward pass, gone afterwards, and what they saw."""

    def __init__(self, count: int) -> None:
        """``count`` records are in the batch."""
        self._count = count
        self._calls: dict[str, _Call] = {}

    @contextmanager
    def over(self, layers: Sequence[Layer]) -> Generator[None]:
        """Watch these layers' calls."""
        handles: list[Any] = []
        try:
            for layer in layers:
                # First of all hooks: it sees the output as the layer gave it.
                handle = layer.module.register_forward_hook(
                    partial(self._seen, layer), prepend=True, with_kwargs=True
                )
                handles.append(handle)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def call_of(self, layer: Layer) -> _Call:
        """Return the layer's one call."""
        if layer.name not in self._calls:
            raise _refusal(
                layer,
                "was not called in the forward pass",
                "its parameters are unused, or used without it (as attention modules do)",
                "freeze it, or choose another trainable set",
            )
        return self._calls[layer.name]

    def _seen(
        self, layer: Layer, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        """Note one call. Its edge stays right when the output is changed in place afterwards."""
        del module
        a: Tensor = args[0] if args else next(iter(kwargs.values()))
        self._check(layer, a, output)
        if output._is_view():
            # An in-place change of a view would bypass the noted edge; an unsafe view is none.
            output = torch.ops.aten._unsafe_view(output, output.shape)
        self._calls[layer.name] = _Call(a.detach(), a._version, get_gradient_edge(output))
        return output

    def _check(self, layer: Layer, a: Tensor, output: Tensor) -> None:
        if layer.name in self._calls:
            raise _refusal(
                layer,
                "was called more than once",
                "one record's gradient would be the sum of several calls; gradient checkpointing"
                " also runs it again",
                "use a layer of its own for each call or freeze it; switch checkpointing off",
            )
        if not output.requires_grad:
            raise _refusal(
                layer,
                "ran without gradients",
                "it is frozen, stands under no_grad, or under re-entrant gradient checkpointing",
                "let the trained layers run with gradients and switch checkpointing off",
            )
        if output.shape[0] != self._count or a.shape[0] != self._count:
            raise _refusal(
                layer,
                f"saw {a.shape[0]} rows where the batch has {self._count} records",
                "its first axis does not number the records (position embeddings, joined batches)",
                "freeze it",
            )


def _use(layer: Layer, call: _Call, g: Tensor | None) -> Use:
    if call.a._version != call.version:
        raise _refusal(
            layer,
            "had its input changed in place after it ran",
            "its weight's gradient needs the input as it was",
            "make that change out of place (ReLU(inplace=False), x = x + y)",
        )
    if g is None:
        raise _refusal(
            layer,
            "gave an output that does not reach the loss",
            "it is unused, or was detached",
            "freeze it, or choose another trainable set",
        )
    return Use(layer, call.a, g)


def _check_losses(values: Tensor, count: int) -> None:
    if values.shape != (count,):
        raise InvalidInput(
            f"the loss has shape {tuple(values.shape)} for {count} records",
            why="clipping needs one loss for each record",
            cure="use reduction='none' and average over everything but the records",
        )


def _masked(values: Tensor, keep: Tensor) -> Tensor:
    """Zero rows by selection: a product with zero would keep NaN."""
    if not values.is_floating_point():
        return values
    return torch.where(keep.view(-1, *([1] * (values.dim() - 1))), values, torch.zeros_like(values))


def _refusal(layer: Layer, what: str, why: str, cure: str) -> InvalidInput:
    kind = type(layer.module).__name__
    return InvalidInput(f"the layer '{layer.name}' ({kind}) {what}", why=why, cure=cure)
