"""Open models of tables: a linear model over features scaled by public bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .preprocess import BoundsScale

if TYPE_CHECKING:
    from ..core.plan import Bounds


class LinearModel(nn.Module):
    """Features scaled to [-1, 1] by the plan's bounds, then one linear layer, zero at first."""

    def __init__(self, bounds: dict[str, Bounds], classes: int) -> None:
        super().__init__()
        self.preprocess = BoundsScale(bounds)
        self.head = nn.Linear(len(bounds), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        """Map (batch, features) raw values to (batch, features) in [-1, 1]."""
        return self.preprocess(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, features) raw values to (batch, classes) logits."""
        return self.head(self.preprocess(x))
