"""The first layer of the hashed text model: numbers of buckets to counts of length one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Counts(nn.Module):
    """(batch, tokens) buckets, -1 for none, to (batch, buckets) counts of L2 norm 1."""

    def __init__(self, buckets: int) -> None:
        super().__init__()
        self.buckets = buckets

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens) to (batch, buckets); a text without words to zeros."""
        # the last column takes the padding and is cut off
        place = x.long().clamp(-1, self.buckets - 1)
        place = torch.where(place < 0, torch.full_like(place, self.buckets), place)
        kind = x.dtype if x.is_floating_point() else torch.float32
        counts = x.new_zeros((len(x), self.buckets + 1), dtype=kind)
        counts = counts.scatter_add(1, place, torch.ones_like(place, dtype=kind))
        counts = counts[:, : self.buckets]
        return counts / counts.norm(dim=1, keepdim=True).clamp(min=1)
