"""The shape that every model has here: raw values, a pre-trained body, a head of the right size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UnitNorm(nn.Module):
    """Scale each row to one L2 norm, so that clipping treats all records alike."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, features) to (batch, features), each row of L2 norm ``norm``."""
        length = torch.sqrt(torch.sum(x * x, dim=1, keepdim=True) + 1e-8)
        return x * (self.norm / length)


class Headed(nn.Module):
    """``preprocess``, ``body``, ``head``, ``output``: raw values to (batch, outputs).

    ``body`` ends in the features that the head reads. ``output`` is the place of the calibration
    that a plan may ask for.
    """

    def __init__(self, preprocess: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.body, self.head = preprocess, body, head
        self.output: nn.Module = nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """Map (batch, ...) raw values to what the head reads."""
        return self.body(self.preprocess(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) raw values to (batch, outputs)."""
        return self.output(self.head(self.features(x)))


class Scaled(nn.Module):
    """A body whose features are scaled to one L2 norm."""

    def __init__(self, net: nn.Module, norm: float) -> None:
        super().__init__()
        self.net, self.scale = net, UnitNorm(norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map what ``net`` reads to (batch, features), each row of L2 norm ``norm``."""
        return self.scale(self.net(x))


def scaled(net: nn.Module, norm: float) -> nn.Module:
    """Return ``net``, its features scaled to the L2 norm ``norm`` where that is above 0."""
    return Scaled(net, norm) if norm else net


def zero_head(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear head that answers 0 at first, so that every run begins alike."""
    head = nn.Linear(inputs, outputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
