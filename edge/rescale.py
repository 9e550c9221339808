"""One factor on a student's logits, which standardised distillation leaves open."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.evaluate import finite_outputs, logits

MOST_RECORDS = 1000
LEAST, MOST = 1e-3, 1e3


class Rescaled(nn.Module):
    """A student whose logits are multiplied by one factor; its answers stay as they are."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Map raw records (batch, ...) to (batch, classes) logits."""
        return self.net(x) * self.get_buffer("factor")


def rescaled(teacher: nn.Module, student: nn.Module, x: NDArray[np.generic]) -> Rescaled:
    """Return the student with the factor that spreads its logits as its teacher's are spread.

    The ratio of their deviations over centred logits on at most ``MOST_RECORDS`` of the public
    records ``x`` (n, ...): the teacher's confidence, and with it the consortium's temperature,
    travels on. Least squares would flatten it further, the less the two agree. Left at 1 where
    the two have nothing in common.
    """
    some = x[:MOST_RECORDS]
    wanted, own = (_centred(finite_outputs(logits(net, some))) for net in (teacher, student))
    if not float((wanted * own).sum()) > 0:
        return Rescaled(student, 1.0).eval()
    factor = float(np.sqrt((wanted * wanted).sum() / (own * own).sum()))
    return Rescaled(student, float(np.clip(factor, LEAST, MOST))).eval()


def _centred(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return outputs.astype(np.float64) - outputs.mean(axis=1, keepdims=True)
