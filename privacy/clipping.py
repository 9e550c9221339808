"""Bounding sensitivity: the sum of per-unit gradients, each clipped to an L2 norm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

logger = logging.getLogger(__name__)

CHUNK = 128
"""Records that pass through the model at once, unless the caller says otherwise."""

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

    def per_unit_norms(
        self, x: Tensor, y: Tensor, *, units: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Return (units,) upper bounds of |g_u|, tight to 1e-4. They stay inside the site."""
        ...


def finite_records(x: Tensor, *, missing: bool = False) -> Tensor:
    """Return (n,) whether all values of a record in ``x`` (n, ...) are finite.

    ``missing``: NaN is a missing value, and the model's first layer says what it stands for.
    """
    usable = ~torch.isinf(x) if missing else torch.isfinite(x)
    return usable.reshape(len(x), -1).all(dim=1)


def reads_missing(model: nn.Module) -> bool:
    """Return whether a model's first layer gives missing values, NaN, a meaning.

    In every other model a NaN may stay in an activation that a finite loss does not show.
    """
    return bool(getattr(getattr(model, "preprocess", None), "reads_missing", False))


def make_clipper(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    loss: PerRecordLoss,
    *,
    chunk: int = CHUNK,
    autocast: torch.dtype | None = None,
) -> Clipper:
    """Return the book-keeping engine, or Opacus hooks where it does not know a trained layer.

    The clipped sum's coordinates are those of ``parameters``, each row by row, in that order.
    Raises ``InvalidInput`` for a model whose per-record gradients cannot be right.
    """
    from .bookkeeping import BookkeepingClipper
    from .layers import unknown_owners

    if unknown := unknown_owners(model, parameters):
        from .opacus_clipper import OpacusClipper

        kinds = ", ".join(sorted(set(unknown.values())))
        logger.info("clipping with Opacus hooks: the book-keeping engine does not know %s", kinds)
        return OpacusClipper(model, parameters, loss, chunk=chunk, autocast=autocast)
    return BookkeepingClipper(model, parameters, loss, chunk=chunk, autocast=autocast)
