"""Both engines' clipped sums against vmap(grad), plain autograd, and hostile records."""

import logging
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collegium.core.errors import InvalidInput
from collegium.core.plan import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.models.task_classification import cross_entropy
from collegium.privacy.bookkeeping import BookkeepingClipper
from collegium.privacy.clipping import Clipper, make_clipper
from collegium.privacy.opacus_clipper import OpacusClipper

torch.set_num_threads(1)
DIGITS = ModelRef(name="collegium:glyph-cnn", task="classification", classes=tuple("0123456789"))
Engine = Callable[..., Clipper]
Case = tuple[nn.Module, list[nn.Parameter], tuple[int, ...], int]


@pytest.fixture(params=[BookkeepingClipper, OpacusClipper], ids=["bookkeeping", "opacus"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    return request.param


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
    """A residual sum on the output of a hooked layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.body(x))
        return self.head(out + x)


def digits(trainable: str) -> Case:
    """The bundled network with a head that is not zero."""
    model = registry.build(DIGITS).train()
    chosen = list(select_trainable(model, trainable).values())
    with torch.no_grad():
        for value in model.get_submodule("head").parameters():
            value.copy_(torch.randn(value.shape, generator=torch.manual_seed(5)))
    return model, chosen, (8, 8), 10


def small(model: nn.Module, shape: tuple[int, ...]) -> Case:
    """A hand-made model, all of it trained."""
    return model, list(model.parameters()), shape, 4


CASES: dict[str, Callable[[], Case]] = {
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


def by_unit(gradients: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(units, d): the mean gradient of each unit's records."""
    return np.array([gradients[units == unit].mean(axis=0) for unit in np.unique(units)])


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Agreement relative to the expected vector's norm."""
    return bool(np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected) + 1e-9)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_sum_of_clipped_gradients(engine: Engine, case: Callable[[], Case]) -> None:
    torch.manual_seed(0)
    model, chosen, shape, classes = case()
    x, y = records(shape, classes, 7)
    gradients = per_record(model, chosen, x, y)
    norms = np.linalg.norm(gradients, axis=1)
    clipper = engine(model, chosen, cross_entropy, chunk=3)
    for clip in (float(np.median(norms)), 1e-3, 1e6):
        assert close(clipper.clipped_sum(x, y, clip), slow_sum(gradients, clip))
    np.testing.assert_allclose(clipper.per_unit_norms(x, y), norms, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 100])
@pytest.mark.parametrize("case", ["digits all", "channels last", "residual"])
def test_units_are_clipped_as_a_whole(engine: Engine, case: str, chunk: int) -> None:
    """Also a unit with half of all rows, in chunks smaller and larger than it."""
    torch.manual_seed(0)
    model, chosen, shape, classes = CASES[case]()
    x, y = records(shape, classes, 14)
    units = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4])
    means = by_unit(per_record(model, chosen, x, y), units)
    norms = np.linalg.norm(means, axis=1)
    clip = float(np.median(norms))
    clipper = engine(model, chosen, cross_entropy, chunk=chunk)
    assert close(clipper.clipped_sum(x, y, clip, units=units), slow_sum(means, clip))
    np.testing.assert_allclose(clipper.per_unit_norms(x, y, units=units), norms, rtol=1e-4)


def test_singleton_units_are_records(engine: Engine) -> None:
    model, chosen, shape, classes = digits("head")
    x, y = records(shape, classes, 6)
    clipper = engine(model, chosen, cross_entropy)
    np.testing.assert_allclose(
        clipper.clipped_sum(x, y, 0.1, units=np.arange(6)),
        clipper.clipped_sum(x, y, 0.1),
        atol=1e-12,
    )


@pytest.mark.parametrize("units", [[0, 2, 2], [1, 1, 2], [0, 1, 0], [0, 0], [-1, 0, 1]])
def test_units_that_are_not_numbered_in_order_are_refused(engine: Engine, units: list[int]) -> None:
    model, chosen, shape, classes = digits("head")
    x, y = records(shape, classes, 3)
    with pytest.raises(InvalidInput, match="ascending"):
        engine(model, chosen, cross_entropy).clipped_sum(x, y, 1.0, units=np.array(units))


def test_vmap_agrees(engine: Engine) -> None:
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
    found = engine(model, chosen, cross_entropy).clipped_sum(x, y, clip)
    assert close(found, slow_sum(rows, clip))


@pytest.mark.parametrize("name", ["digits all", "channels last, stride 2", "residual"])
def test_sensitivity(engine: Engine, name: str) -> None:
    """One record more moves the sum by at most C, whichever record, whatever else is there."""
    torch.manual_seed(0)
    model, chosen, shape, classes = CASES[name]()
    clipper = engine(model, chosen, cross_entropy)
    x, y = records(shape, classes, 5)
    x[2] *= 1e4  # an outlier
    clip = 0.05
    whole = clipper.clipped_sum(x, y, clip)
    for gone in range(len(x)):
        keep = [i for i in range(len(x)) if i != gone]
        without = clipper.clipped_sum(x[keep], y[keep], clip)
        assert np.linalg.norm(whole - without) <= clip * (1 + 1e-5)


def test_no_record_is_nothing_and_chunks_do_not_matter(engine: Engine) -> None:
    model, chosen, shape, classes = digits("head")
    x, y = records(shape, classes, 11)
    sums = [
        engine(model, chosen, cross_entropy, chunk=chunk).clipped_sum(x, y, 1.0)
        for chunk in (1, 4, 11, 128)
    ]
    for other in sums[1:]:
        np.testing.assert_allclose(other, sums[0], atol=1e-5)
    for units in (None, np.zeros(0, dtype=np.intp)):
        clipper = engine(model, chosen, cross_entropy)
        empty = clipper.clipped_sum(x[:0], y[:0], 1.0, units=units)
        assert not empty.any()
        assert empty.shape == sums[0].shape
        assert clipper.per_unit_norms(x[:0], y[:0], units=units).shape == (0,)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_a_poisoned_record_contributes_nothing(
    engine: Engine, poison: float, trainable: str
) -> None:
    model, chosen, shape, classes = digits(trainable)
    x, y = records(shape, classes, 6)
    clipper = engine(model, chosen, cross_entropy)
    clean = clipper.clipped_sum(x[[1, 2, 4, 5]], y[[1, 2, 4, 5]], 0.5)
    x[0, 0], x[3, 2, 2] = poison, float("nan")
    np.testing.assert_allclose(clipper.clipped_sum(x, y, 0.5), clean, rtol=1e-5, atol=1e-7)
    assert clipper.per_unit_norms(x, y)[[0, 3]].tolist() == [0.0, 0.0]


def test_a_huge_record_contributes_at_most_what_any_record_may(engine: Engine) -> None:
    model, chosen, shape, classes = digits("all")
    x, y = records(shape, classes, 6)
    clipper = engine(model, chosen, cross_entropy)
    clean = clipper.clipped_sum(x[1:], y[1:], 0.5)
    x[0, 0] = 3e38
    found = clipper.clipped_sum(x, y, 0.5)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - clean) <= 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("chunk", [2, 100])
def test_a_poisoned_record_leaves_the_rest_of_its_unit(engine: Engine, chunk: int) -> None:
    """The unit's gradient is then the sum of the others over the number of all."""
    model, chosen, shape, classes = digits("all")
    x, y = records(shape, classes, 5)
    units = np.array([0, 0, 0, 1, 1])
    rows = per_record(model, chosen, x, y)
    rows[1] = 0
    x[1] = float("nan")
    found = engine(model, chosen, cross_entropy, chunk=chunk).clipped_sum(x, y, 0.7, units=units)
    assert close(found, slow_sum(by_unit(rows, units), 0.7))


def test_a_batch_that_cannot_be_used_does_not_spoil_the_next_one(engine: Engine) -> None:
    """A label that no class has raises between forward and backward; then all is as before."""
    model, chosen, shape, classes = digits("head")
    x, y = records(shape, classes, 4)
    clipper = engine(model, chosen, cross_entropy)
    expected = clipper.clipped_sum(x, y, 1.0)
    with pytest.raises(IndexError):
        clipper.clipped_sum(x[:3], torch.tensor([0, 1, 99]), 1.0)
    assert not any(module._forward_hooks for module in model.modules())
    np.testing.assert_array_equal(clipper.clipped_sum(x, y, 1.0), expected)


@pytest.mark.parametrize(
    ("engine", "training"),
    [(BookkeepingClipper, True), (BookkeepingClipper, False), (OpacusClipper, True)],
)
def test_the_model_is_left_as_it_was(engine: Engine, training: bool) -> None:
    model, chosen, shape, classes = digits("head")
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    needed = [value.requires_grad for value in model.parameters()]
    grads = [torch.ones_like(value) for value in chosen]
    for value, grad in zip(chosen, grads, strict=True):
        value.grad = grad
    shared = torch.random.get_rng_state()
    engine(model, chosen, cross_entropy).clipped_sum(*records(shape, classes, 3), 1.0)
    assert torch.equal(torch.random.get_rng_state(), shared)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for module in model.modules():
        assert module.training == training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert [value.requires_grad for value in model.parameters()] == needed
    for value, grad in zip(chosen, grads, strict=True):
        assert value.grad is grad
        assert bool((grad == 1).all())
    assert not any(hasattr(value, "grad_sample") for value in model.parameters())


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_refused(engine: Engine, train: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train(train)
    with pytest.raises(InvalidInput, match="BatchNorm1d"):
        engine(model, list(model.parameters()), cross_entropy)


def test_shared_weights_are_refused(engine: Engine) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with pytest.raises(InvalidInput, match="same tensor"):
        engine(model, list(model.parameters()), cross_entropy)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    engine(model, [], cross_entropy)  # frozen, they mix nothing


def test_a_known_model_gets_the_bookkeeping_engine(caplog: pytest.LogCaptureFixture) -> None:
    model, chosen, *_ = digits("all")
    with caplog.at_level(logging.INFO):
        assert isinstance(make_clipper(model, chosen, cross_entropy), BookkeepingClipper)
    assert not caplog.records


def test_an_unknown_layer_gets_the_opacus_engine(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv3d(1, 4, 2), nn.Flatten(), nn.Linear(32, 4))
    x, y = records((1, 3, 3, 3), 4, 5)
    chosen = list(model.parameters())
    with caplog.at_level(logging.INFO):
        clipper = make_clipper(model, chosen, cross_entropy)
    assert isinstance(clipper, OpacusClipper)
    assert "does not know Conv3d" in caplog.text
    assert close(clipper.clipped_sum(x, y, 0.5), slow_sum(per_record(model, chosen, x, y), 0.5))


def test_an_unknown_layer_that_is_frozen_does_not_matter() -> None:
    model = nn.Sequential(nn.Conv3d(1, 4, 2), nn.Flatten(), nn.Linear(32, 4))
    model[0].requires_grad_(False)
    clipper = make_clipper(model, list(model[2].parameters()), cross_entropy)
    assert isinstance(clipper, BookkeepingClipper)


def test_the_default_path_does_not_import_opacus() -> None:
    """Its import costs seconds of CPU at every start of a site."""
    code = (
        "import sys, torch; from torch import nn\n"
        "from collegium.privacy.clipping import make_clipper\n"
        "m = nn.Linear(2, 2); l = nn.CrossEntropyLoss(reduction='none')\n"
        "c = make_clipper(m, list(m.parameters()), l)\n"
        "c.clipped_sum(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64), 1.0)\n"
        "sys.exit('opacus' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
