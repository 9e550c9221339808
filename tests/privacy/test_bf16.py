"""bfloat16 forward passes: what is summed still has norm C, and is near the float32 sum."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from collegium.core.mechanism import CLIP_SLACK
from collegium.privacy.bookkeeping import BookkeepingClipper
from collegium.privacy.clipping import Clipper
from collegium.privacy.opacus_clipper import OpacusClipper

torch.set_num_threads(1)
BF16 = torch.bfloat16


def loss(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output.float(), y, reduction="none")


class Attention(nn.Module):
    """A transformer layer in miniature: projections, softmax, norm, gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), 8, 8)
        q, k, v = self.q(rows), self.k(rows), self.v(rows)
        mixed = torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v
        return self.head(functional.gelu(self.norm(rows + mixed)).mean(1))


def net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "attention":
        return Attention().train()
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4)).train()
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4),
    ).train()  # fmt: skip


def batch(scale: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return scale * torch.randn(24, 1, 8, 8), torch.randint(0, 4, (24,))


@pytest.mark.parametrize("kind", ["linear", "convolution", "attention"])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_what_is_summed_is_clipped_in_bf16_too(kind: str, scale: float) -> None:
    """Each unit alone, a patient of three, and all together: measured on the sum itself."""
    model = net(kind)
    engine: Clipper = BookkeepingClipper(model, list(model.parameters()), loss, autocast=BF16)
    (x, y), clip = batch(scale), 1e-2
    alone = np.array([engine.clipped_sum(x[i : i + 1], y[i : i + 1], clip) for i in range(len(x))])
    norms = np.linalg.norm(alone, axis=1)
    assert norms.max() <= clip * (1 + CLIP_SLACK)
    assert np.median(norms) > 0.999 * clip  # the bound binds
    patients = np.repeat(np.arange(8), 3)
    for number in range(8):
        rows = slice(3 * number, 3 * number + 3)
        one = engine.clipped_sum(x[rows], y[rows], clip, units=np.zeros(3, dtype=np.intp))
        assert np.linalg.norm(one) <= clip * (1 + CLIP_SLACK)
    together = engine.clipped_sum(x, y, clip, units=patients)
    assert np.linalg.norm(together) <= 8 * clip * (1 + CLIP_SLACK)


@pytest.mark.parametrize("kind", ["linear", "convolution", "attention"])
def test_bf16_gradients_are_near_those_of_float32(kind: str) -> None:
    """And not equal: autocast is really on."""
    model = net(kind)
    parameters, (x, y) = list(model.parameters()), batch(1.0)
    exact = BookkeepingClipper(model, parameters, loss).clipped_sum(x, y, 1e6)
    rough = BookkeepingClipper(model, parameters, loss, autocast=BF16).clipped_sum(x, y, 1e6)
    error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    assert 1e-6 < error < 0.05


def test_opacus_hooks_in_bf16() -> None:
    model = net("linear")
    engine = OpacusClipper(model, list(model.parameters()), loss, autocast=BF16)
    x, y = batch(1.0)
    found = [engine.clipped_sum(x[i : i + 1], y[i : i + 1], 1e-2) for i in range(len(x))]
    assert np.linalg.norm(found, axis=1).max() <= 1e-2 * (1 + CLIP_SLACK)
