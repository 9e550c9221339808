"""Open models of tables: a linear model over features scaled by public bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .preprocess import TablePreprocess

if TYPE_CHECKING:
    from ..core.plan import ModelRef


class LinearModel(nn.Module):
    """A table's inputs as ``TablePreprocess`` scales them, then one linear layer, zero at first."""

    def __init__(self, ref: ModelRef, outputs: int) -> None:
        super().__init__()
        self.preprocess = TablePreprocess(ref)
        self.head = nn.Linear(self.preprocess.width, outputs)
        self.output: nn.Module = nn.Identity()  # calibration, where the plan asks for it
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        """Map (batch, columns) raw values to (batch, width) inputs."""
        return self.preprocess(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, columns) raw values to (batch, outputs)."""
        return self.output(self.head(self.preprocess(x)))
