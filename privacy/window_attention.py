"""Swin's windowed attention with its two Linear layers called as layers, a row per record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

KIND = "torchvision.models.swin_transformer.ShiftedWindowAttention"


class WindowAttention(nn.Module):
    """torchvision's ShiftedWindowAttention (version 1), the same parameters under the same names.

    The original hands the weights of ``qkv`` and ``proj`` to a function, and folds windows into
    the batch. Here both layers are called, on (n, positions, channels). The table of relative
    positions, which all windows of all records share, is frozen. No dropout.
    (Liu et al. 2021, arXiv:2103.14030, section 3.2)
    """

    relative_position_index: Tensor

    def __init__(self, other: nn.Module) -> None:
        """Take over the layers, table and options of ``other``."""
        super().__init__()
        source = cast("Any", other)
        self.window: tuple[int, int] = (source.window_size[0], source.window_size[1])
        self.shift: tuple[int, int] = (source.shift_size[0], source.shift_size[1])
        self.num_heads: int = source.num_heads
        self.qkv: nn.Linear = source.qkv
        self.proj: nn.Linear = source.proj
        table: nn.Parameter = source.relative_position_bias_table
        self.relative_position_bias_table = table.requires_grad_(False)
        self.register_buffer("relative_position_index", source.relative_position_index)
        self.train(other.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, height, width, channels) for an input of the same shape."""
        height, width = x.shape[1:3]
        (wh, ww) = self.window
        x = functional.pad(x, (0, 0, 0, -width % ww, 0, -height % wh))
        size = (x.shape[1], x.shape[2])
        shift = tuple(
            0 if w >= s else by for w, s, by in zip(self.window, size, self.shift, strict=True)
        )
        x = torch.roll(x, (-shift[0], -shift[1]), (1, 2)) if any(shift) else x
        windows = self._split(x)  # (n, windows, positions, channels)
        qkv = self.qkv(windows.flatten(1, 2)).unflatten(1, windows.shape[1:3])
        # three of (n, windows, heads, positions, channels per head)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + self._bias()
        if any(shift):
            scores = scores + self._apart(size, shift, x)[:, None]
        mixed = (functional.softmax(scores, dim=-1) @ v).transpose(2, 3).flatten(3)
        out = self.proj(mixed.flatten(1, 2)).unflatten(1, windows.shape[1:3])
        out = self._join(out, size)
        out = torch.roll(out, shift, (1, 2)) if any(shift) else out
        return out[:, :height, :width].contiguous()

    def _split(self, x: Tensor) -> Tensor:
        """Cut (n, height, width, ...) into windows: (n, windows, positions, ...)."""
        x = x.unflatten(2, (-1, self.window[1])).unflatten(1, (-1, self.window[0]))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _join(self, windows: Tensor, size: Sequence[int]) -> Tensor:
        """Undo ``_split`` for (n, windows, positions, channels)."""
        rows = size[0] // self.window[0]
        x = windows.unflatten(2, self.window).unflatten(1, (rows, -1))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _bias(self) -> Tensor:
        """Return what relative positions add: (heads, positions, positions)."""
        positions = self.window[0] * self.window[1]
        table = self.relative_position_bias_table[self.relative_position_index]
        return table.view(positions, positions, -1).permute(2, 0, 1)

    def _apart(self, size: Sequence[int], shift: Sequence[int], like: Tensor) -> Tensor:
        """Return -100 between positions that only the roll made neighbours.

        (windows, positions, positions)
        """
        region = torch.zeros(1, *size, dtype=like.dtype, device=like.device)
        for axis in (0, 1):
            cuts = (size[axis] - self.window[axis], size[axis] - shift[axis])
            place = torch.arange(size[axis], device=like.device)
            band = (place >= cuts[0]).to(like.dtype) + (place >= cuts[1]).to(like.dtype)
            region = region + (3 ** (1 - axis)) * (band[:, None] if axis == 0 else band[None, :])
        region = self._split(region)[0]  # (windows, positions)
        differs = region[:, None, :] != region[:, :, None]
        return differs.to(like.dtype) * -100.0


def is_window_attention(module: nn.Module) -> bool:
    """Return whether ``module`` is the original of version 1, known by name: no import needed."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}" == KIND
