"""Bounding sensitivity: the sum of per-record gradients, each clipped to an L2 norm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn

from ..core.errors import InvalidInput, NotBuiltYet
from .readiness import check

# Opacus hooks modules whose inputs need no gradient (a head on a frozen trunk): torch then warns
# that only output gradients arrive, which is all that per-record gradients of the layer need.
warnings.filterwarnings("ignore", message="Full backward hook is firing")

PerRecordLoss = Callable[[Tensor, Tensor], Tensor]
"""(batch, classes) logits and (batch,) targets to a (batch,) loss."""


class Clipper(Protocol):
    """Turns units into one bounded vector: sum_u min(1, C / |g_u|) g_u."""

    def clipped_sum(
        self, x: Tensor, y: Tensor, clip_norm: float, *, units: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Return the (d,) clipped sum over the records of ``x`` (n, ...) and ``y`` (n,).

        ``units`` (n,) numbers each record's unit, ascending from 0; a unit's gradient g_u is the
        mean of its records' gradients. None: each record is a unit.
        """
        ...


class OpacusClipper:
    """Flat per-record clipping with Opacus hooks on the unwrapped model.

    Records pass in chunks of ``chunk`` so that memory does not grow with the batch. A record
    whose gradient is not finite contributes zero. (Abadi et al. 2016, Algorithm 1)
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        loss: PerRecordLoss,
        *,
        chunk: int = 128,
    ) -> None:
        if problems := check(model):
            raise InvalidInput(f"the model {type(model).__name__} cannot be trained", problems)
        self._model, self._parameters, self._loss = model, list(parameters), loss
        self._chunk = chunk
        self._size = sum(parameter.numel() for parameter in self._parameters)

    def clipped_sum(
        self, x: Tensor, y: Tensor, clip_norm: float, *, units: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Return the (d,) clipped sum; an empty batch gives zeros."""
        if units is not None:
            raise NotBuiltYet("clipping by patient", cure="set [privacy] unit = 'record'")
        total = torch.zeros(self._size, dtype=torch.float64)
        if len(x) == 0:
            return total.numpy()
        orderly = [
            module.register_forward_pre_hook(_contiguous) for module in self._model.modules()
        ]
        hooks = GradSampleHooks(self._model, loss_reduction="sum", strict=False)
        try:
            for start in range(0, len(x), self._chunk):
                part = slice(start, start + self._chunk)
                total += self._clip(self._gradients(x[part], y[part]), clip_norm)
        finally:
            hooks.cleanup()
            for handle in orderly:
                handle.remove()
        return total.numpy()

    def _gradients(self, x: Tensor, y: Tensor) -> Tensor:
        self._model.zero_grad(set_to_none=True)
        self._loss(self._model(x), y).sum().backward()
        rows: list[Tensor] = []
        for parameter in self._parameters:
            sample = getattr(parameter, "grad_sample", None)
            if not isinstance(sample, Tensor):
                raise InvalidInput(
                    "a trainable parameter received no per-record gradient",
                    why="its layer is not known to the clipping engine or was not used",
                    cure="freeze it, or choose another trainable set",
                )
            rows.append(sample.reshape(len(x), -1))
            parameter.grad_sample = None  # pyright: ignore[reportAttributeAccessIssue]
            parameter.grad = None
        return torch.cat(rows, dim=1)  # (batch, d)

    @staticmethod
    def _clip(gradients: Tensor, clip_norm: float) -> Tensor:
        finite = torch.isfinite(gradients).all(dim=1)
        gradients = torch.where(finite[:, None], gradients, torch.zeros_like(gradients)).double()
        norms = gradients.norm(dim=1)
        factors = (clip_norm / norms.clamp_min(1e-12)).clamp_max(1.0)
        return factors @ gradients


def _contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lay a layer's inputs out row by row: Opacus unfolds any other layout wrongly, in silence."""
    del module
    return tuple(value.contiguous() if isinstance(value, Tensor) else value for value in inputs)
