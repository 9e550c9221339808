"""The self-check of a clipping engine: plain autograd, one synthetic record after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import ClipperMismatch
from .clipping import PerRecordLoss

RECORDS = 3
TOLERANCE = 1e-3
COARSE = 5e-2  # for models whose own numbers are coarser than float32

Norms = Callable[[Tensor, Tensor], NDArray[np.float64]]
Sums = Callable[[Tensor, Tensor, float], NDArray[np.float64]]


def self_check(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    loss: PerRecordLoss,
    like: tuple[Tensor, Tensor],
    *,
    norms: Norms,
    clipped: Sums,
) -> None:
    """Compare an engine with autograd on made-up records; raises ``ClipperMismatch``.

    Of ``like`` (records, targets) only shape and data type are used. The trained parameters are
    moved off zero meanwhile (behind a zero head every gradient is zero) and put back bit for
    bit. torch's shared generator is not used; a model that draws from it differs from itself
    and fails.
    """
    x, y = synthetic(like[0]), synthetic(like[1], label=True)
    with moved(model, parameters):
        found = norms(x, y)  # first: what the engine refuses has a better message
        rows = _by_autograd(model, parameters, loss, x, y)
        expected = np.array([_norm(row) for row in rows])
        clip = float(np.median(expected)) or 1.0
        total = clipped(x, y, clip)
    factors = np.minimum(1.0, clip / np.maximum(expected, 1e-300))
    coarse = any(p.dtype not in (torch.float32, torch.float64) for p in parameters)
    limit = COARSE if coarse else TOLERANCE
    # Written so that a comparison with NaN fails.
    norms_agree = np.all(np.abs(found - expected) <= limit * expected + 1e-6 * expected.max())
    sums_agree = _distance(total, factors, rows) <= limit * clip
    if not (norms_agree and sums_agree):
        raise ClipperMismatch(
            "per-record gradients differ from plain autograd on synthetic records",
            why=(
                f"norms of {np.array2string(found, precision=6)} were found where autograd has"
                f" {np.array2string(expected, precision=6)}: the model mixes records, draws at"
                " random, or uses a layer in a way that the engine cannot follow"
            ),
            cure="freeze such layers, or report the model as a bug",
        )


def synthetic(like: Tensor, *, label: bool = False) -> Tensor:
    """Return RECORDS records with the shape and type of ``like`` (n, ...), drawn apart.

    Floats lie in [0, 1) (valid as pixels, tokens and probabilities), integers are 0 or 1,
    integer labels 0: the class that always exists. The generator is our own.
    """
    shape = (RECORDS, *like.shape[1:])
    own = torch.Generator().manual_seed(0)
    if like.is_floating_point():
        return torch.rand(shape, generator=own, dtype=torch.float64).to(like)
    if label:
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    return torch.randint(2, shape, generator=own).to(like)


@contextmanager
def moved(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Generator[None]:
    """Shift every parameter by a tenth of its size (or .1), and put all back as it was."""
    own = torch.Generator().manual_seed(1)
    saved = [(value, value.detach().clone()) for value in (*parameters, *model.buffers())]
    try:
        with torch.no_grad():
            for parameter in parameters:
                size = float(parameter.detach().double().square().mean().sqrt()) or 1.0
                draw = torch.randn(parameter.shape, generator=own, dtype=torch.float64)
                parameter.add_((0.1 * size * draw).to(parameter))
        yield
    finally:
        with torch.no_grad():
            for value, before in saved:
                value.copy_(before)


def _by_autograd(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    loss: PerRecordLoss,
    x: Tensor,
    y: Tensor,
) -> list[list[Tensor]]:
    """Return each loss' gradients (one forward pass), a tensor for each parameter.

    They stay apart: one joined row of a large model in float64 would be its largest block.
    """
    with torch.enable_grad():
        losses = loss(model(x), y)
        rows: list[list[Tensor]] = []
        for value in losses.unbind():
            grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            rows.append([_flat(g, p) for g, p in zip(grads, parameters, strict=True)])
    return rows


def _norm(row: Sequence[Tensor]) -> float:
    norms = [float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in row]
    return float(np.linalg.norm(norms))


def _distance(
    total: NDArray[np.float64], factors: NDArray[np.float64], rows: Sequence[Sequence[Tensor]]
) -> float:
    """Return |total - sum_i factors[i] rows[i]|, a parameter at a time; NaN spreads."""
    offset, squares = 0, 0.0
    for parts in zip(*rows, strict=True):
        expected = sum(
            factor * part.double().cpu().numpy()
            for factor, part in zip(factors, parts, strict=True)
        )
        part_of_total = total[offset : offset + parts[0].numel()]
        squares += float(np.sum((part_of_total - expected) ** 2))
        offset += parts[0].numel()
    return float(np.sqrt(squares))


def _flat(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    if gradient is None:
        return torch.zeros_like(parameter).reshape(-1)
    return (gradient.to_dense() if gradient.is_sparse else gradient).reshape(-1)
