"""The book-keeping clipper: every unit's norm and the clipped sum from one backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import InvalidInput
from .clipping import CHUNK, PerRecordLoss, finite_records, reads_missing
from .layer_batches import Batch, batches, unit_sizes
from .layer_check import RECORDS, self_check
from .layer_chunk import ChunkGradients, add_vector, full_precision
from .layer_recording import record
from .layers import layers_of, names_of
from .readiness import check

Units = NDArray[np.intp] | None


class BookkeepingClipper:
    """Flat clipping by book-keeping (Bu et al., 2210.00038), for the layers of ``layers.RULES``.

    One forward records each trained layer's input, one backward of activations only its output's
    gradient; both give every unit's norm and the weighted sum, so that weight gradients are
    formed once, already clipped. Norms are upper bounds in float64. A unit whose gradient
    cancels so far that float32 sums could exceed C is formed and clipped alone, in float64. A
    record with a number that is not finite contributes zero, its unit the sum of the others
    over the number of all. Outside the forward pass everything is float32 or better, never TF32.
    The first call checks the engine on synthetic records.
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
        """``chunk`` records pass at once; ``autocast`` is the forward pass's data type.

        Raises ``InvalidInput`` with every obstacle in the model.
        """
        if problems := check(model, names_of(model, parameters)):
            raise InvalidInput(f"the model {type(model).__name__} cannot be trained", problems)
        if chunk < 1:
            raise InvalidInput(f"a chunk of {chunk} records", why="it must hold at least one")
        self._model, self._parameters, self._loss = model, list(parameters), loss
        self._layers = layers_of(model, self._parameters)
        self._chunk, self._autocast = chunk, autocast
        self._missing = reads_missing(model)
        self._size = sum(parameter.numel() for parameter in self._parameters)
        self._checked = not self._layers

    def clipped_sum(
        self, x: Tensor, y: Tensor, clip_norm: float, *, units: Units = None
    ) -> NDArray[np.float64]:
        """Return the (d,) clipped sum; an empty batch gives zeros.

        ``units`` (n,) numbers each record's unit, ascending from 0; None: each record is one.
        Raises ``InvalidInput`` when the model cannot be followed, ``ClipperMismatch`` when the
        self-check fails.
        """
        if not clip_norm > 0:
            raise InvalidInput(f"a clip norm of {clip_norm}", why="it must be above zero")
        self._check_once(x, y)
        return self._sum(x, y, clip_norm, units)

    def per_unit_norms(self, x: Tensor, y: Tensor, *, units: Units = None) -> NDArray[np.float64]:
        """Return (units,) upper bounds of |g_u|, tight to 1e-4; 0 where nothing is finite.

        They depend on records and stay inside the site. Raises as ``clipped_sum`` does.
        """
        self._check_once(x, y)
        return self._norms(x, y, units)

    def _sum(self, x: Tensor, y: Tensor, clip_norm: float, units: Units) -> NDArray[np.float64]:
        todo = self._batches(x, units)
        total = self._vector(x) if todo else self._vector(x).zero_()
        for number, batch in enumerate(todo):
            if batch.per_unit <= self._chunk:
                chunk = self._gradients(x, y, batch)
                with torch.no_grad(), full_precision():
                    chunk.add_clipped(total, clip_norm, fresh=number == 0)
            else:
                add_vector(total, self._large(x, y, batch), clip_norm, fresh=number == 0)
        return total.cpu().numpy()

    def _norms(self, x: Tensor, y: Tensor, units: Units) -> NDArray[np.float64]:
        found = np.zeros(len(x) if units is None else len(unit_sizes(len(x), units)))
        for batch in self._batches(x, units):
            if batch.per_unit > self._chunk:
                found[batch.units] = float(self._large(x, y, batch).norm())
                continue
            chunk = self._gradients(x, y, batch)
            with torch.no_grad(), full_precision():
                found[batch.units] = chunk.norms(self._size).cpu().numpy()
        return found

    def _batches(self, x: Tensor, units: Units) -> Sequence[Batch]:
        return list(batches(len(x), units, self._chunk)) if self._layers else []

    def _large(self, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """Return the mean gradient (d,) of one unit that is larger than a chunk."""
        vector = self._vector(x)
        for number, part in enumerate(batch.split(self._chunk)):
            chunk = self._gradients(x, y, part)
            one = torch.ones(1, dtype=torch.float64, device=x.device)
            with torch.no_grad(), full_precision():
                chunk.add(vector, one, fresh=number == 0)
        return vector

    def _gradients(self, x: Tensor, y: Tensor, batch: Batch) -> ChunkGradients:
        """Run the model forward and back on one batch."""
        part_x, part_y = batch.of(x), batch.of(y)
        weights = None if batch.weights is None else torch.from_numpy(batch.weights).to(x.device)

        def losses() -> Tensor:
            if self._autocast is None:
                return self._loss(self._model(part_x), part_y)
            with torch.autocast(x.device.type, dtype=self._autocast):
                return self._loss(self._model(part_x), part_y)

        uses, values = record(self._layers, losses, weights, len(part_x))
        with torch.no_grad(), full_precision():
            keep = torch.isfinite(values) & finite_records(part_x, missing=self._missing)
            return ChunkGradients(uses, keep, batch.per_unit)

    def _vector(self, x: Tensor) -> Tensor:
        """Return (d,) numbers that are not set yet: a fresh large block is dear to touch."""
        return torch.empty(self._size, dtype=torch.float64, device=x.device)

    def _check_once(self, x: Tensor, y: Tensor) -> None:
        """Check the engine before its first result, without autocast: the structure is the same."""
        if self._checked or len(x) == 0 or not self._layers:
            return
        settings = self._autocast, self._chunk
        self._autocast, self._chunk = None, max(self._chunk, RECORDS)
        try:
            self_check(
                *(self._model, self._parameters, self._loss, (x, y)),
                norms=lambda made_x, made_y: self._norms(made_x, made_y, None),
                clipped=lambda made_x, made_y, clip: self._sum(made_x, made_y, clip, None),
            )
        finally:
            self._autocast, self._chunk = settings
        self._checked = True
