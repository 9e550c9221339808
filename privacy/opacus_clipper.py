"""Clipping with Opacus hooks: the tests' oracle, and the fallback for layers of its own.

Importing Opacus costs seconds of CPU: nothing on the default path imports this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn

from ..core.errors import InvalidInput
from .clipping import CHUNK, PerRecordLoss, finite_records, reads_missing
from .layer_batches import unit_sizes
from .layers import names_of
from .readiness import check

# Opacus hooks modules whose inputs need no gradient (a head on a frozen trunk): torch then warns
# that only output gradients arrive, which is all that per-record gradients of the layer need.
warnings.filterwarnings("ignore", message="Full backward hook is firing")

Units = NDArray[np.intp] | None


class OpacusClipper:
    """Flat clipping with Opacus hooks on the unwrapped model (Abadi et al. 2016, Algorithm 1).

    Records pass in chunks, so that memory does not grow with the batch, and their gradients are
    formed. A record whose gradient is not finite contributes zero, its unit the sum of the
    others over the number of all.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        loss: PerRecordLoss,
        *,
        chunk: int = CHUNK,
        autocast: torch.dtype | None = None,
    ) -> None:
        """``chunk`` records pass at once; ``autocast`` is the forward pass's data type."""
        if problems := check(model, names_of(model, parameters)):
            raise InvalidInput(f"the model {type(model).__name__} cannot be trained", problems)
        self._model, self._parameters, self._loss = model, list(parameters), loss
        self._chunk, self._autocast = chunk, autocast
        self._missing = reads_missing(model)
        self._size = sum(parameter.numel() for parameter in self._parameters)

    def clipped_sum(
        self, x: Tensor, y: Tensor, clip_norm: float, *, units: Units = None
    ) -> NDArray[np.float64]:
        """Return the (d,) clipped sum; an empty batch gives zeros."""
        total = torch.zeros(self._size, dtype=torch.float64)
        for gradients in self._by_unit(x, y, units):  # (some units, d)
            factors = (clip_norm / gradients.norm(dim=1).clamp_min(1e-300)).clamp_max(1.0)
            total += factors @ gradients
        return total.numpy()

    def per_unit_norms(self, x: Tensor, y: Tensor, *, units: Units = None) -> NDArray[np.float64]:
        """Return the (units,) norms; they stay inside the site."""
        norms = [gradients.norm(dim=1) for gradients in self._by_unit(x, y, units)]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *norms]).numpy()

    def _by_unit(self, x: Tensor, y: Tensor, units: Units) -> Iterator[Tensor]:
        """Yield the gradients (units, d) of consecutive units; one may span several chunks."""
        if units is None:
            yield from self._by_record(x, y)
            return
        sizes = torch.from_numpy(unit_sizes(len(x), units))
        numbers = torch.from_numpy(np.asarray(units, dtype=np.int64))
        open_row, done, start = torch.zeros(0, self._size, dtype=torch.float64), 0, 0
        for rows in self._by_record(x, y):
            here = numbers[start : start + len(rows)]
            start += len(rows)
            means = torch.zeros(int(here[-1]) + 1 - done, self._size, dtype=torch.float64)
            means[: len(open_row)] = open_row
            means.index_add_(0, here - done, rows / sizes[here][:, None])
            done = int(here[-1])
            yield means[:-1]
            open_row = means[-1:]
        yield open_row

    def _by_record(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yield the gradients (chunk, d) float64; zero where one is not finite."""
        if len(x) == 0:
            return
        if not self._model.training:
            raise InvalidInput(
                "the model is in evaluation mode",
                why="Opacus follows layers in training mode only",
                cure="call model.train()",
            )
        orderly = [
            module.register_forward_pre_hook(_contiguous) for module in self._model.modules()
        ]
        hooks = GradSampleHooks(self._model, loss_reduction="sum", strict=False)
        kept = [(parameter, parameter.grad) for parameter in self._model.parameters()]
        try:
            for start in range(0, len(x), self._chunk):
                part = slice(start, start + self._chunk)
                gradients = self._gradients(x[part], y[part])
                finite = finite_records(gradients) & finite_records(x[part], missing=self._missing)
                gradients = torch.where(finite[:, None], gradients, torch.zeros_like(gradients))
                yield gradients.double().cpu()
        finally:
            hooks.cleanup()
            for handle in orderly:
                handle.remove()
            for parameter, grad in kept:
                parameter.grad = grad

    def _gradients(self, x: Tensor, y: Tensor) -> Tensor:
        self._model.zero_grad(set_to_none=True)
        self._losses(x, y).sum().backward()
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
        return torch.cat(rows, dim=1)  # (chunk, d)

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        if self._autocast is None:
            return self._loss(self._model(x), y)
        with torch.autocast(x.device.type, dtype=self._autocast):
            return self._loss(self._model(x), y)


def _contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Lay a layer's inputs out row by row: Opacus unfolds any other layout wrongly, in silence."""
    del module
    return tuple(value.contiguous() if isinstance(value, Tensor) else value for value in inputs)
