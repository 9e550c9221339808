"""Open models of tables: linear and multilayer, over features scaled by public bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .heads import Headed, zero_head
from .outputs import outputs
from .preprocess import TablePreprocess

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard
    from .states import Source


class LinearModel(nn.Module):
    """A table's inputs as ``TablePreprocess`` scales them, then one linear layer, zero at first."""

    def __init__(self, ref: ModelRef, outputs: int) -> None:
        super().__init__()
        self.preprocess = TablePreprocess(ref)
        self.head = zero_head(self.preprocess.width, outputs)
        self.output: nn.Module = nn.Identity()  # calibration, where the plan asks for it

    def features(self, x: Tensor) -> Tensor:
        """Map (batch, columns) raw values to (batch, width) inputs."""
        return self.preprocess(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, columns) raw values to (batch, outputs)."""
        return self.output(self.head(self.preprocess(x)))


def build_linear(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the linear model of a plan."""
    del card, source
    return LinearModel(ref, outputs(ref))


def build_mlp(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return a multilayer perceptron with a zero head.

    tanh: its gradients stay bounded, which suits clipping (Papernot et al., AAAI 2021,
    https://arxiv.org/abs/2007.14191).
    """
    del source
    preprocess = TablePreprocess(ref)
    hidden, inputs = card.whole(ref, "hidden"), preprocess.width
    layers: list[nn.Module] = []
    for _ in range(card.whole(ref, "layers")):
        layers += [nn.Linear(inputs, hidden), nn.Tanh()]
        inputs = hidden
    return Headed(preprocess, nn.Sequential(*layers), zero_head(hidden, outputs(ref)))
