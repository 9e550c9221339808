"""Per-unit gradients of one parameter, formed or not: their norms, and their weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ROUNDING = 8 * 2.0**-24
"""Relative rounding of a blocked float32 product or sum, charged to every norm.

Blocks of a matrix product add a few hundred terms in a row; the rounding of K additions grows
like sqrt(K) (Higham and Mary, SIAM J. Sci. Comput. 2019), so 8 units cover them.
"""
DOUBLE = 2.0**-53
SUMMED_UNITS = 32  # units per float32 sum; further ones are added in float64
EXACT_SUM = 1 << 20  # multiply-adds up to which a whole sum is done in float64
BLOCK = 1 << 21  # elements of a temporary
KEPT = 1 << 23  # elements of formed gradients that one layer may hold
REACH = 1e18  # activations or gradients beyond this are only handled in float64


@dataclass(frozen=True, slots=True)
class Size:
    """Squared norms (units,) and rounding masses (units,), both float64.

    The mass bounds the sum of the magnitudes that are added up to form a gradient: the rounding
    of its float32 sum is at most ``ROUNDING`` times it.
    """

    squared: Tensor
    mass: Tensor


class PerUnitGradient(Protocol):
    """The gradient of one parameter for each unit of a chunk."""

    def size(self) -> Size:
        """Return upper bounds of the squared norms, and the masses."""
        ...

    def add_weighted(self, total: Tensor, factors: Tensor, *, fresh: bool) -> None:
        """Add sum_u ``factors[u]`` g_u to ``total`` (p,) float64, in the parameter's order.

        ``fresh``: ``total`` holds nothing yet, not even zeros.
        """
        ...

    def alone(self, unit: int) -> Tensor:
        """Return one unit's gradient (p,) in float64, formed without cancellation tricks."""
        ...


def same(value: Tensor) -> Tensor:
    """Return ``value`` as it is."""
    return value


class Formed:
    """Gradients that were formed: (units, ...); what is measured is exactly what is summed."""

    def __init__(self, rows: Tensor, ordered: Callable[[Tensor], Tensor] = same) -> None:
        """``ordered`` turns one gradient of shape ``rows[0]`` into the parameter's layout."""
        self._rows, self._ordered = rows, ordered

    def size(self) -> Size:
        """Return squared norms; the mass is the norm itself."""
        norms = row_norms(self._rows)
        return Size(norms.square(), norms)

    def add_weighted(self, total: Tensor, factors: Tensor, *, fresh: bool) -> None:
        """Add the sum over units to ``total`` (p,)."""
        rows = self._rows.flatten(1)
        if rows.numel() <= EXACT_SUM:
            rows = rows.double()
        factors = factors.to(rows.dtype)
        for part in blocks(len(rows), SUMMED_UNITS):
            summed = self._ordered((factors[part] @ rows[part]).view(self._rows.shape[1:]))
            put(total, summed, fresh and part.start == 0)

    def alone(self, unit: int) -> Tensor:
        """Return the unit's gradient (p,)."""
        return self._ordered(self._rows[unit].double()).reshape(-1)


class Products:
    """Unformed gradients of a matrix: g_u = G_u^T A_u with G (units, t, p) and A (units, t, d)."""

    def __init__(self, g: Tensor, a: Tensor) -> None:
        self._g, self._a = g, a

    def size(self) -> Size:
        """Return squared norms from the two Gram matrices, in float64, and their masses."""
        if self._g.shape[1] == 1:
            reach = row_norms(self._a)
            norms = row_norms(self._g) * reach
            return Size(norms.square(), _unless_far(norms, reach))
        per_unit = self._g[0].numel() + self._a[0].numel()
        parts = [
            gram_size(self._g[part].double(), self._a[part].double())
            for part in blocks(len(self._g), max(1, BLOCK // max(1, per_unit)))
        ]
        return joined(parts)

    def add_weighted(self, total: Tensor, factors: Tensor, *, fresh: bool) -> None:
        """Add the sum over units and positions to ``total`` (p * d,)."""
        g, a = self._g, self._a
        if g.numel() * a.shape[2] <= EXACT_SUM:
            g, a = g.double(), a.double()
        factors = factors.to(g.dtype)
        for part in blocks(len(g), SUMMED_UNITS):
            scaled = g[part] * factors[part, None, None]
            summed = scaled.flatten(0, 1).T @ a[part].flatten(0, 1)
            put(total, summed, fresh and part.start == 0)

    def alone(self, unit: int) -> Tensor:
        """Return the unit's gradient (p * d,)."""
        return (self._g[unit].double().T @ self._a[unit].double()).reshape(-1)


class Scattered:
    """Gradients of an embedding: rows g (units, t, width) land on tokens (units, t)."""

    def __init__(self, tokens: Tensor, g: Tensor, count: int, padding: int | None) -> None:
        """``count`` tokens exist; ``padding`` is the one that learns nothing."""
        units = len(tokens)
        keys = torch.arange(units, device=tokens.device)[:, None] * count + tokens.long()
        rows = g.flatten(0, 1)
        if padding is not None:
            rows = torch.where((tokens != padding).reshape(-1, 1), rows, torch.zeros_like(rows))
        distinct, place = torch.unique(keys, return_inverse=True)
        self._rows = rows.new_zeros((len(distinct), g.shape[2])).index_add_(
            0, place.reshape(-1), rows
        )
        self._owner, self._token = distinct // count, distinct % count
        self._units, self._count = units, count

    def size(self) -> Size:
        """Return squared norms of what is summed; the mass is the norm itself."""
        squared = torch.zeros(self._units, dtype=torch.float64, device=self._rows.device)
        squared.index_add_(0, self._owner, row_norms(self._rows).square())
        return Size(squared, squared.sqrt())

    def add_weighted(self, total: Tensor, factors: Tensor, *, fresh: bool) -> None:
        """Add the sum over units to ``total`` (count * width,)."""
        rows = self._rows.double() * factors[self._owner, None]
        if fresh:
            total.zero_()
        total.view(self._count, -1).index_add_(0, self._token, rows)

    def alone(self, unit: int) -> Tensor:
        """Return the unit's gradient (count * width,)."""
        mine = self._owner == unit
        rows = self._rows[mine].double()
        whole = rows.new_zeros((self._count, rows.shape[1]))
        return whole.index_add_(0, self._token[mine], rows).reshape(-1)


def put(total: Tensor, summed: Tensor, fresh: bool) -> None:
    """Add ``summed`` (...) to ``total`` (p,); where nothing is yet, write it."""
    target = total.view(summed.shape)
    if fresh:
        target.copy_(summed)  # untouched memory is touched once
    else:
        target.add_(summed)


def matrix_gradient(g: Tensor, a: Tensor) -> PerUnitGradient:
    """Return the cheaper form of G_u^T A_u for G (units, t, p) and A (units, t, d)."""
    units, t, p = g.shape
    d = a.shape[2]
    if t > 1 and form_is_cheaper(units, t, p, d):
        return Formed(torch.bmm(g.transpose(1, 2), a))
    return Products(g, a)


def form_is_cheaper(units: int, t: int, p: int, d: int) -> bool:
    """Compare forming (units, p, d) gradients with two (t, t) Gram matrices in float64.

    In multiply-adds, with weights measured on a CPU: a formed gradient spares the later sum but
    is written once and read twice.
    """
    if units * p * d > KEPT:
        return False
    return (100 + 0.5 * t) * p * d < 2.5 * t * t * (p + d)


def gram_size(g: Tensor, a: Tensor) -> Size:
    """Return the sizes of G_u^T A_u for float64 G (units, t, p) and A (units, t, d).

    |G^T A|^2 = sum((G G^T) * (A A^T)) (Bu et al., 2210.00038). Terms of both signs may cancel,
    even to below zero: a bound of the rounding of all t^2 (p + d) operations is added, and a
    mass far above the norm tells the caller to form that gradient.
    """
    t, p, d = g.shape[1], g.shape[2], a.shape[2]
    gg, aa = torch.bmm(g, g.transpose(1, 2)), torch.bmm(a, a.transpose(1, 2))  # (units, t, t)
    own_g, own_a = gg.diagonal(dim1=1, dim2=2), aa.diagonal(dim1=1, dim2=2)  # (units, t)
    mass = (own_g.clamp_min(0) * own_a.clamp_min(0)).sqrt().sum(1)
    product = (gg.flatten(1) * aa.flatten(1)).sum(1)
    squared = product.clamp_min(0) + (t * t + p + d) * DOUBLE * mass.square()
    return Size(squared, _unless_far(mass, own_a.amax(1).sqrt()))


def _unless_far(mass: Tensor, reach: Tensor) -> Tensor:
    """Return masses, infinite where activations are beyond REACH.

    There a scaled gradient may lose its bits in float32 before it meets the activations.
    """
    return torch.where(reach > REACH, torch.full_like(mass, torch.inf), mass)


def joined(parts: list[Size]) -> Size:
    """Return the sizes of consecutive blocks of units as one."""
    if len(parts) == 1:
        return parts[0]
    return Size(torch.cat([p.squared for p in parts]), torch.cat([p.mass for p in parts]))


def row_norms(rows: Tensor) -> Tensor:
    """Return the (n,) float64 L2 norms of ``rows`` (n, ...).

    Large float32 rows are summed in float32 along their last axis and in float64 across;
    norms that are too large or too small for float32 squares are computed in float64.
    """
    if rows.dtype == torch.float64 or rows.numel() <= 1 << 15 or rows.dim() < 3:
        return torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=torch.float64)
    partial = torch.linalg.vector_norm(rows, dim=-1)
    norms = torch.linalg.vector_norm(partial.flatten(1), dim=1, dtype=torch.float64)
    doubtful = ~((norms > 1e-12) & (norms < REACH))
    if doubtful.any():
        again = rows[doubtful].flatten(1)
        norms[doubtful] = torch.linalg.vector_norm(again, dim=1, dtype=torch.float64)
    return norms


def blocks(count: int, width: int) -> Iterator[slice]:
    """Yield consecutive slices of at most ``width`` that cover ``range(count)``."""
    for start in range(0, count, width):
        yield slice(start, min(start + width, count))
