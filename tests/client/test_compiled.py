"""The frozen part alone is compiled; what cannot be compiled is said, not left out."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collegium.client.compiled import compile_frozen
from collegium.client.train import Trainer
from collegium.core.errors import InvalidInput, NotAvailable
from collegium.core.plan import ModelRef, Plan
from collegium.data.site_data import SiteData
from collegium.models import registry
from collegium.privacy.derive import mechanism
from collegium.privacy.noise import SeededNoise

torch.set_num_threads(1)
GLYPHS = ModelRef(name="collegium:glyph-cnn", task="classification", classes=tuple("0123456789"))


class Net(nn.Module):
    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        if broken:
            self.body.append(Breaks())
        self.head = nn.Linear(8, 2)
        self.body.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x


def test_a_model_that_trains_as_a_whole_is_refused() -> None:
    model = Net()
    model.requires_grad_(True)
    with pytest.raises(InvalidInput, match="no part of this model is frozen"):
        compile_frozen(model)


def test_what_cannot_be_compiled_whole_is_refused_when_it_runs() -> None:
    model = Net(broken=True)
    assert compile_frozen(model) == ("body",)
    with warnings.catch_warnings(), pytest.raises(NotAvailable, match="cannot compile 'body'"):
        warnings.simplefilter("ignore")
        model(torch.zeros(2, 4))


@pytest.mark.slow
def test_the_compiled_trunk_trains_as_before(make_plan: Callable[..., Plan]) -> None:
    """The bundled CNN's trunk, on batches of several sizes: the same update to rounding."""
    plan = replace(make_plan(1, local_steps=4), model=GLYPHS)
    x = np.random.default_rng(0).integers(0, 17, (20, 8, 8)).astype(np.float32)
    data = SiteData(asset="a", train_x=x, train_y=np.arange(20) % 10, test_x=x[:3], test_y=x[:3])
    found: list[np.ndarray] = []
    for compiled in (False, True):
        trainer = Trainer(registry.build(GLYPHS), plan, compile=compiled)
        digest, base = trainer.layout.digest, trainer.open_vector
        spec = mechanism(plan, plan.sites[0], noise_multiplier=0.0, trainable_digest=digest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of the compiler's environment
            found.append(trainer.train(base, data, spec, SeededNoise(0), site="a", round=1))
    assert np.abs(found[0] - found[1]).max() < 1e-4 < np.abs(found[0]).max()
    assert trainer.layout.names == ("head.weight", "head.bias")
