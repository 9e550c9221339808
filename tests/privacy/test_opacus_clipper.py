"""Opacus hooks as the fallback: layers of their own, and what they cannot do."""

import numpy as np
import pytest
import torch
from opacus.layers import DPMultiheadAttention
from torch import Tensor, nn

from collegium.core.errors import InvalidInput
from collegium.models.task_classification import cross_entropy
from collegium.privacy.opacus_clipper import OpacusClipper


class Attentive(nn.Module):
    """Self-attention and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = DPMultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x, x, x)[0].mean(1))


class Scaled(nn.Module):
    """A norm over each record's channels, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.InstanceNorm1d(6, affine=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)).mean(1))


@pytest.mark.parametrize("kind", [Attentive, Scaled])
@pytest.mark.parametrize("units", [None, np.array([0, 0, 1, 2, 2])])
def test_layers_that_opacus_knows(kind: type[nn.Module], units: np.ndarray | None) -> None:
    torch.manual_seed(0)
    model = kind()
    chosen = list(model.parameters())
    x, y = torch.randn(5, 6, 4), torch.tensor([0, 1, 1, 0, 1])
    rows = []
    for i in range(5):
        grads = torch.autograd.grad(cross_entropy(model(x[i : i + 1]), y[i : i + 1]).sum(), chosen)
        rows.append(torch.cat([grad.flatten() for grad in grads]).double().numpy())
    table = np.array(rows)
    if units is not None:
        table = np.array([table[units == unit].mean(axis=0) for unit in range(3)])
    norms = np.linalg.norm(table, axis=1)
    clip = float(np.median(norms))
    clipper = OpacusClipper(model, chosen, cross_entropy, chunk=2)
    expected = np.minimum(1, clip / norms) @ table
    np.testing.assert_allclose(
        clipper.clipped_sum(x, y, clip, units=units), expected, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(clipper.per_unit_norms(x, y, units=units), norms, rtol=1e-4)


def test_a_parameter_of_no_layer_is_refused_and_leaves_nothing_behind() -> None:
    model = nn.Linear(3, 2)
    x, y = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    expected = OpacusClipper(model, list(model.parameters()), cross_entropy).clipped_sum(x, y, 1.0)
    more = [*model.parameters(), nn.Parameter(torch.zeros(1))]
    with pytest.raises(InvalidInput, match="no per-record gradient"):
        OpacusClipper(model, more, cross_entropy).clipped_sum(x, y, 1.0)
    again = OpacusClipper(model, list(model.parameters()), cross_entropy).clipped_sum(x, y, 1.0)
    np.testing.assert_array_equal(again, expected)


def test_evaluation_mode_is_refused() -> None:
    model = nn.Linear(3, 2).eval()
    with pytest.raises(InvalidInput, match="evaluation mode"):
        OpacusClipper(model, list(model.parameters()), cross_entropy).clipped_sum(
            torch.ones(1, 3), torch.zeros(1, dtype=torch.int64), 1.0
        )
