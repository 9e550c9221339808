"""Clipped sums against vmap(grad), one record at a time against autograd, and hostile records."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collegium.core.errors import InvalidInput
from collegium.core.plan import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.models.tasks import cross_entropy
from collegium.privacy.clipping import OpacusClipper

torch.set_num_threads(1)
DIGITS = ModelRef(name="collegium:glyph-cnn", task="classification", classes=tuple("0123456789"))
TABLE = ModelRef(
    name="tabular:linear",
    task="classification",
    classes=("a", "b"),
    bounds=dict.fromkeys("uvw", (-1.0, 1.0)),
)


class ChannelsLast(nn.Module):
    """A convolution that is handed a non-contiguous input (Opacus' unfold2d trap)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, stride=stride, padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        moved = x.to(memory_format=torch.channels_last)
        return self.head(self.conv(moved).mean(dim=(2, 3)))


class Residual(nn.Module):
    """An in-place residual sum on the output of a hooked layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.body(x))
        return self.head(out + x)


def digits(trainable: str) -> tuple[nn.Module, list[nn.Parameter], tuple[int, ...], int]:
    """The bundled network with a head that is not zero."""
    model = registry.build(DIGITS).train()
    chosen = list(select_trainable(model, trainable).values())
    with torch.no_grad():
        for value in model.get_submodule("head").parameters():
            value.copy_(torch.randn(value.shape, generator=torch.manual_seed(5)))
    return model, chosen, (8, 8), 10


def small(
    model: nn.Module, shape: tuple[int, ...]
) -> tuple[nn.Module, list[nn.Parameter], tuple[int, ...], int]:
    """A hand-made model, all of it trained."""
    return model, list(model.parameters()), shape, 4


CASES: dict[str, Callable[[], tuple[nn.Module, list[nn.Parameter], tuple[int, ...], int]]] = {
    "digits head": lambda: digits("head"),
    "digits bias": lambda: digits("bias"),
    "digits all": lambda: digits("all"),
    "channels last": lambda: small(ChannelsLast(1), (2, 5, 5)),
    "channels last, stride 2": lambda: small(ChannelsLast(2), (2, 6, 6)),
    "residual": lambda: small(Residual(), (6,)),
}


def records(
    shape: tuple[int, ...], classes: int, count: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random records."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand((count, *shape), generator=rng) * 16
    return x, torch.randint(classes, (count,), generator=rng)


def per_record(model: nn.Module, chosen: list[nn.Parameter], x: Tensor, y: Tensor) -> np.ndarray:
    """The (n, d) gradients, one record after the other by plain autograd: the slow twin."""
    rows = []
    for i in range(len(x)):
        loss = cross_entropy(model(x[i : i + 1]), y[i : i + 1]).sum()
        parts = torch.autograd.grad(loss, chosen)
        rows.append(torch.cat([part.reshape(-1) for part in parts]).double().numpy())
    return np.array(rows)


def slow_sum(gradients: np.ndarray, clip: float) -> np.ndarray:
    """sum_i min(1, C / |g_i|) g_i"""
    return sum(
        (row * min(1.0, clip / max(float(np.linalg.norm(row)), 1e-12)) for row in gradients),
        start=np.zeros(gradients.shape[1]),
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_sum_of_clipped_gradients(case: Callable[[], tuple]) -> None:  # type: ignore[type-arg]
    torch.manual_seed(0)
    model, chosen, shape, classes = case()
    x, y = records(shape, classes, 7)
    gradients = per_record(model, chosen, x, y)
    norms = np.linalg.norm(gradients, axis=1)
    clipper = OpacusClipper(model, chosen, cross_entropy, chunk=3)
    for clip in (float(np.median(norms)), 1e-3, 1e6):
        expected = slow_sum(gradients, clip)
        found = clipper.clipped_sum(x, y, clip)
        assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected) + 1e-9


def test_vmap_agrees() -> None:
    """A third opinion, independent of hooks and of loops."""
    model, chosen, shape, classes = digits("all")
    x, y = records(shape, classes, 5)
    names = [name for name, _ in model.named_parameters()]
    values = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], one_x: Tensor, one_y: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, parameters, (one_x[None],))
        return cross_entropy(logits, one_y[None]).sum()

    table = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(values, x, y)
    rows = torch.cat([table[name].reshape(len(x), -1) for name in names], dim=1).double().numpy()
    clip = float(np.median(np.linalg.norm(rows, axis=1)))
    found = OpacusClipper(model, chosen, cross_entropy).clipped_sum(x, y, clip)
    expected = slow_sum(rows, clip)
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["digits all", "channels last, stride 2", "residual"])
def test_sensitivity(name: str) -> None:
    """One record more moves the sum by at most C, whichever record, whatever else is there."""
    torch.manual_seed(0)
    model, chosen, shape, classes = CASES[name]()
    clipper = OpacusClipper(model, chosen, cross_entropy)
    x, y = records(shape, classes, 5)
    x[2] *= 1e4  # an outlier
    clip = 0.05
    whole = clipper.clipped_sum(x, y, clip)
    for gone in range(len(x)):
        keep = [i for i in range(len(x)) if i != gone]
        without = clipper.clipped_sum(x[keep], y[keep], clip)
        assert np.linalg.norm(whole - without) <= clip * (1 + 1e-5)


def test_no_record_is_nothing_and_chunks_do_not_matter() -> None:
    model, chosen, shape, classes = digits("head")
    x, y = records(shape, classes, 11)
    sums = [
        OpacusClipper(model, chosen, cross_entropy, chunk=chunk).clipped_sum(x, y, 1.0)
        for chunk in (1, 4, 11, 128)
    ]
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], atol=1e-5)
    empty = OpacusClipper(model, chosen, cross_entropy).clipped_sum(x[:0], y[:0], 1.0)
    assert not empty.any()
    assert empty.shape == sums[0].shape


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_poisoned_record_contributes_at_most_what_any_record_may(poison: float) -> None:
    model, chosen, shape, classes = digits("all")
    x, y = records(shape, classes, 6)
    clean = OpacusClipper(model, chosen, cross_entropy).clipped_sum(x[1:], y[1:], 0.5)
    x[0, 0] = poison
    found = OpacusClipper(model, chosen, cross_entropy).clipped_sum(x, y, 0.5)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - clean) <= 0.5 * (1 + 1e-5)
    if np.isnan(poison):
        np.testing.assert_allclose(found, clean, rtol=1e-6, atol=1e-9)


def test_nothing_of_a_failed_batch_is_left_in_the_next_one() -> None:
    """A loss that raises after the backward pass began must not leave per-record gradients."""
    model, chosen, shape, classes = digits("head")
    x, y = records(shape, classes, 4)
    expected = OpacusClipper(model, chosen, cross_entropy).clipped_sum(x, y, 1.0)
    clipper = OpacusClipper(model, [*chosen, nn.Parameter(torch.zeros(1))], cross_entropy)
    with pytest.raises(InvalidInput, match="no per-record gradient"):
        clipper.clipped_sum(x, y, 1.0)
    again = OpacusClipper(model, chosen, cross_entropy).clipped_sum(x, y, 1.0)
    np.testing.assert_array_equal(again, expected)


def test_a_batch_that_cannot_be_used_does_not_spoil_the_next_one() -> None:
    """A label that no class has raises between forward and backward; then all is as before."""
    model, chosen, shape, classes = digits("head")
    x, y = records(shape, classes, 4)
    clipper = OpacusClipper(model, chosen, cross_entropy)
    expected = clipper.clipped_sum(x, y, 1.0)
    with pytest.raises(IndexError):
        clipper.clipped_sum(x[:3], torch.tensor([0, 1, 99]), 1.0)
    np.testing.assert_array_equal(clipper.clipped_sum(x, y, 1.0), expected)


def test_the_model_is_left_as_it_was() -> None:
    model, chosen, shape, classes = digits("head")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    OpacusClipper(model, chosen, cross_entropy).clipped_sum(*records(shape, classes, 3), 1.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    assert all(value.grad is None for value in model.parameters())
    assert not any(hasattr(value, "grad_sample") for value in model.parameters())


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_refused(train: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train(train)
    with pytest.raises(InvalidInput, match="BatchNorm1d"):
        OpacusClipper(model, list(model.parameters()), cross_entropy)


def test_shared_weights_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with pytest.raises(InvalidInput, match="same tensor"):
        OpacusClipper(model, list(model.parameters()), cross_entropy)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    OpacusClipper(model, [], cross_entropy)  # frozen, they mix nothing
