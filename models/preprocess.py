"""The model's first layer: raw values in, scaled values out, so that it travels into the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..core.plan import Bounds


class PixelScale(nn.Module):
    """Add the channel axis and divide by the largest pixel value: 0..``largest`` to 0..1."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, height, width) to (batch, 1, height, width)."""
        return x.unsqueeze(1) / self.largest


class BoundsScale(nn.Module):
    """Clip every feature to its public bounds and scale it to [-1, 1].

    The bounds stand in the plan; nothing here is fitted on records.
    """

    def __init__(self, bounds: dict[str, Bounds]) -> None:
        super().__init__()
        low = torch.tensor([low for low, _ in bounds.values()], dtype=torch.float32)
        high = torch.tensor([high for _, high in bounds.values()], dtype=torch.float32)
        # Not persistent: the bounds travel in the plan and in the exported graph, and a site
        # sends its trainable parameters only.
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, features) raw values to (batch, features) in [-1, 1]."""
        low, high = self.get_buffer("low"), self.get_buffer("high")
        clipped = torch.minimum(torch.maximum(x, low), high)
        return 2 * (clipped - low) / (high - low) - 1
