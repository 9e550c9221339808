"""Every task trains under the clipping engine: its sum is that of each record's own gradient."""

import numpy as np
import pytest
import torch
from torch import nn

from collegium.core.plan import ModelRef
from collegium.models.tasks import task
from collegium.privacy.clipping import make_clipper

CLIP = 0.4
KINDS = {
    "classification": {"classes": ("a", "b", "c"), "class_weights": (1.0, 2.0, 0.5)},
    "multilabel": {"classes": ("a", "b", "c"), "class_weights": (1.0, 2.0, 0.5)},
    "regression": {"target": (0.0, 10.0)},
    "survival": {"target": (0.0, 90.0, 365.0)},
    "segmentation": {"classes": ("a", "b", "c"), "options": {"dice": 0.5}},
}


def records(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw records (n, 4), or images (n, 2, 5, 5), and labels as readers give them."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(count, 2, 5, 5) if name == "segmentation" else (count, 4))
    y = {
        "classification": rng.integers(0, 3, count),
        "multilabel": rng.integers(0, 2, (count, 3)).astype(np.float32),
        "regression": rng.uniform(0, 10, count).astype(np.float32),
        "survival": np.stack([rng.uniform(0, 400, count), rng.integers(0, 2, count)], 1).astype(
            "f4"
        ),
        "segmentation": np.where(
            rng.random((count, 5, 5)) < 0.2, 255, rng.integers(0, 3, (count, 5, 5))
        ),
    }[name]
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


@pytest.mark.parametrize("name", KINDS)
def test_the_clipped_sum_is_that_of_single_records(name: str) -> None:
    made = task(ModelRef(name="plugin:a", task=name, **KINDS[name]))  # type: ignore[arg-type]
    torch.manual_seed(0)
    segments = name == "segmentation"
    model = nn.Conv2d(2, made.outputs, 3, padding=1) if segments else nn.Linear(4, made.outputs)
    x, y = records(name, 7)
    expected = torch.zeros(sum(each.numel() for each in model.parameters()), dtype=torch.float64)
    norms: list[float] = []
    for i in range(len(x)):
        loss = made.loss(model(x[i : i + 1]), y[i : i + 1]).sum()
        parts = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([part.reshape(-1) for part in parts]).double()
        norms.append(float(gradient.norm()))
        expected += gradient * min(1.0, CLIP / norms[-1])
    clipper = make_clipper(model, list(model.parameters()), made.loss, chunk=3)
    assert max(norms) > CLIP
    np.testing.assert_allclose(clipper.clipped_sum(x, y, CLIP), expected, rtol=2e-4, atol=1e-5)
