"""Per-unit gradients of a convolution's weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layer_gradients import (
    BLOCK,
    SUMMED_UNITS,
    Formed,
    PerUnitGradient,
    Size,
    blocks,
    form_is_cheaper,
    gram_size,
    joined,
    put,
)

Conv = nn.Conv1d | nn.Conv2d


def conv_weight(module: Conv, a: Tensor, g: Tensor, rows: int) -> PerUnitGradient:
    """Return the gradients of ``module.weight`` for units of ``rows`` records each.

    ``a`` (n, channels, ...) is the layer's input, ``g`` (n, outputs, ...) the gradient of its
    output. Padding of any kind is done first; one dimension is two with a height of 1.
    """
    shape = Geometry(module)
    a, g = shape.padded(a), (g if g.dim() == 4 else g.unsqueeze(2))
    if g.dtype != a.dtype:
        a = a.to(g.dtype)
    positions = g.shape[2] * g.shape[3]
    units = len(a) // rows
    outputs, patch = g.shape[1] // shape.groups, shape.patch
    if shape.groups > 1 or form_is_cheaper(units, rows * positions, outputs, patch):
        return Formed(_formed(shape, a, g, rows), shape.ordered)
    return ConvProducts(shape, a, g, rows)


class Geometry:
    """A convolution's numbers, as of two dimensions and without padding."""

    def __init__(self, module: Conv) -> None:
        one = isinstance(module, nn.Conv1d)
        lead = (1,) if one else ()
        self.kernel = (*lead, *module.kernel_size)
        self.stride = (*lead, *module.stride)
        self.dilation = (*lead, *module.dilation)
        self.groups = module.groups
        self.weight = module.weight
        self._one, self._mode = one, module.padding_mode
        self._pads: list[int] = module._reversed_padding_repeated_twice  # last axis first
        self.channels = module.in_channels // module.groups
        self.patch = self.channels * self.kernel[0] * self.kernel[1]

    def padded(self, a: Tensor) -> Tensor:
        """Return the input (n, channels, height, width) with its padding, contiguous."""
        if any(self._pads):
            mode = "constant" if self._mode == "zeros" else self._mode
            a = functional.pad(a, self._pads, mode=mode)
        return (a.unsqueeze(2) if self._one else a).contiguous()

    def patches(self, a: Tensor, out: tuple[int, int]) -> Tensor:
        """Return what each output position sees: (n, groups, positions, patch), channels last.

        Channels last, so that rows of the kernel are copied in long runs (3x faster than
        ``unfold`` on a CPU); ``ordered`` undoes it.
        """
        n, channels, height, width = a.shape
        last = a.permute(0, 2, 3, 1).contiguous()  # (n, height, width, channels)
        (sy, sx), (dy, dx) = self.stride, self.dilation
        view = last.as_strided(
            (n, *out, *self.kernel, self.groups, self.channels),
            (
                height * width * channels,
                *(sy * width * channels, sx * channels),
                *(dy * width * channels, dx * channels),
                *(self.channels, 1),
            ),
        )
        order = view if self.groups == 1 else view.permute(0, 5, 1, 2, 3, 4, 6)
        return order.reshape(n, self.groups, out[0] * out[1], self.patch)

    def ordered(self, gradient: Tensor) -> Tensor:
        """Turn (groups, outputs, patch) into the weight's own layout."""
        apart = gradient.reshape(-1, *self.kernel, self.channels)
        return apart.permute(0, 3, 1, 2)

    def by_group(self, g: Tensor) -> Tensor:
        """Return (n, outputs, h, w) as (n, groups, outputs per group, positions)."""
        return g.reshape(len(g), self.groups, -1, g.shape[2] * g.shape[3])


def _formed(shape: Geometry, a: Tensor, g: Tensor, rows: int) -> Tensor:
    """Return the gradients (units, groups, outputs, patch)."""
    out = (g.shape[2], g.shape[3])
    by_group = shape.by_group(g)
    parts: list[Tensor] = []
    per_unit = rows * shape.groups * out[0] * out[1] * shape.patch
    for part in blocks(len(a) // rows, max(1, 4 * BLOCK // max(1, per_unit))):
        span = slice(part.start * rows, part.stop * rows)
        patches = shape.patches(a[span], out)
        formed = torch.matmul(by_group[span], patches)
        parts.append(formed if rows == 1 else formed.unflatten(0, (-1, rows)).sum(1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class ConvProducts:
    """Unformed gradients: norms from Gram matrices of patches, the sum by the layer's own backward.

    For one group only; ``a`` is padded.
    """

    def __init__(self, shape: Geometry, a: Tensor, g: Tensor, rows: int) -> None:
        self._shape, self._a, self._g, self._rows = shape, a, g, rows

    def size(self) -> Size:
        """Return squared norms and masses, a block of units at a time."""
        positions = self._rows * self._g.shape[2] * self._g.shape[3]
        per_unit = positions * (self._shape.patch + self._g.shape[1] + 2 * positions)
        units = len(self._a) // self._rows
        return joined(
            [
                gram_size(*self._matrices(part))
                for part in blocks(units, max(1, BLOCK // max(1, per_unit)))
            ]
        )

    def _matrices(self, units: slice) -> tuple[Tensor, Tensor]:
        """Return float64 G (units, t, outputs) and A (units, t, patch)."""
        span = slice(units.start * self._rows, units.stop * self._rows)
        g, a = self._g[span], self._a[span]
        patches = self._shape.patches(a, (g.shape[2], g.shape[3])).double()
        count = units.stop - units.start
        return (
            g.flatten(2).transpose(1, 2).double().reshape(count, -1, g.shape[1]),
            patches.reshape(count, -1, self._shape.patch),
        )

    def add_weighted(self, total: Tensor, factors: Tensor, *, fresh: bool) -> None:
        """Add the sum to ``total`` (p,): the weight's gradient for scaled output gradients."""
        g, a, weight = self._g, self._a, self._shape.weight.detach()
        each = factors.repeat_interleave(self._rows).to(g.dtype)[:, None, None, None]
        weight = weight.to(g.dtype).reshape(len(weight), -1, *self._shape.kernel)
        for part in blocks(len(g), SUMMED_UNITS):
            summed = torch.ops.aten.convolution_backward(
                *(g[part] * each[part], a[part], weight, None),
                *(self._shape.stride, (0, 0), self._shape.dilation),
                *(False, (0, 0), 1, (False, True, False)),
            )[1]
            put(total, summed, fresh and part.start == 0)

    def alone(self, unit: int) -> Tensor:
        """Return the unit's gradient (p,)."""
        g, a = self._matrices(slice(unit, unit + 1))
        return self._shape.ordered(g[0].T @ a[0]).reshape(-1)
