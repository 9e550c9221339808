"""The first layer of the hashed text model: numbers of buckets to damped counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Counts(nn.Module):
    """(batch, tokens) buckets, -1 for none, to (batch, buckets) roots of counts, scaled.

    The root keeps one word that is said often from drowning all others; ``norm`` is the L2 norm
    of every record's row, which bounds its gradient.
    """

    def __init__(self, buckets: int, norm: float = 1.0) -> None:
        super().__init__()
        self.buckets, self.norm = buckets, norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens) to (batch, buckets); a text without words to zeros."""
        # the last column takes the padding and is cut off
        place = x.long().clamp(-1, self.buckets - 1)
        place = torch.where(place < 0, torch.full_like(place, self.buckets), place)
        kind = x.dtype if x.is_floating_point() else torch.float32
        counts = x.new_zeros((len(x), self.buckets + 1), dtype=kind)
        counts = counts.scatter_add(1, place, torch.ones_like(place, dtype=kind))
        damped = counts[:, : self.buckets].sqrt()
        return damped * (self.norm / damped.norm(dim=1, keepdim=True).clamp(min=1))
