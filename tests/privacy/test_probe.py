"""What only a run on synthetic records shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from collegium.core.errors import InvalidInput
from collegium.privacy.readiness import check

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """A linear layer, and a function of (layer, x) that stands for a model's own forward pass."""

    def __init__(self, forward: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.run = nn.Linear(4, 4), forward
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.layer, x)


@pytest.mark.parametrize(
    ("forward", "where", "word"),
    [
        (lambda f, x: x @ f.weight.T + f.bias, "layer 'layer'", "used without calling it"),
        (lambda f, x: x, "layer 'layer'", "never called"),
        (lambda f, x: f(f(x)), "layer 'layer'", "called 2 times"),
        (lambda f, x: x + f(x[:1]), "layer 'layer'", "sees 1 rows where the batch has 3"),
        (lambda f, x: f(x - x.mean(0)), "layer 'layer'", "depends on the other records"),
        (
            lambda f, x: f(nn.functional.batch_norm(x, None, None, training=True)),
            "layer 'layer'",
            "depends on the other records",
        ),
        (lambda f, x: f(x).cumsum(0).flip(0), "the model", "depends on the other records"),
        (lambda f, x: f(x * torch.rand(3, 1)), "layer 'layer'", "random"),
        (
            lambda f, x: checkpoint(lambda v: f(v).tanh(), x, use_reentrant=False),
            "layer 'layer'",
            "backward pass",
        ),
        (lambda f, x: f(x).sum(), "the model", "without one row for each record"),
        (lambda f, x: f(x[:, :2]), "the model", "does not run"),
    ],
)
def test_a_run_finds(forward: Callable[[nn.Linear, Tensor], Tensor], where: str, word: str) -> None:
    model = Around(forward)
    assert check(model) == []  # nothing to see from outside
    (problem,) = check(model, example=X)
    assert problem.where == where
    assert word in problem.what


def test_buffers_that_move() -> None:
    class Moving(Around):
        def forward(self, x: Tensor) -> Tensor:
            self.mean.add_(x.mean(0).detach())
            return self.layer(x)

    model = Moving(lambda f, x: x)
    (problem,) = check(model, example=X)
    assert "'mean' changes" in problem.what
    assert not model.mean.any()  # a copy ran, not the model


def test_attention_over_the_batch() -> None:
    """Records on the first axis, and a frozen attention that takes it for the sequence."""

    class Wrong(nn.Module):
        def __init__(self, *, batch_first: bool) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)
            self.attention.requires_grad_(False)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

    x = torch.randn(3, 5, 4)
    assert check(Wrong(batch_first=True), example=x) == []
    assert check(Wrong(batch_first=False)) == []
    (problem,) = check(Wrong(batch_first=False), example=x)
    assert "depends on the other records" in problem.what
    assert problem.where == "layer 'head'"  # the attention itself returns a tuple


def test_nothing_is_left_behind() -> None:
    model = Around(lambda f, x: f(x)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    assert check(model, ["layer.weight"], example=X) == []
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and model.layer.bias.requires_grad
    assert model.layer.weight.grad is None and not model.layer._forward_hooks


def test_one_record_shows_nothing() -> None:
    with pytest.raises(InvalidInput, match="not enough"):
        check(Around(lambda f, x: f(x)), example=X[:1])
