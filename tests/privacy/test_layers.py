"""Every rule against autograd in float64, one record at a time, over generated shapes."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from collegium.privacy import layer_conv, layer_gradients
from collegium.privacy.layer_chunk import ChunkGradients
from collegium.privacy.layer_recording import Use
from collegium.privacy.layers import layers_of, rule_for, unknown_owners

torch.set_num_threads(1)
QUICK = settings(max_examples=40, deadline=None)


def gradients(module: nn.Module, x: Tensor, g: Tensor) -> np.ndarray:
    """(n, d) gradients of sum(output * g) for each record, by autograd in float64."""
    module, g = copy.deepcopy(module).double(), g.double()
    x = x.double() if x.is_floating_point() else x
    chosen = [value for value in module.parameters() if value.requires_grad]
    rows = []
    for i in range(len(x)):
        parts = torch.autograd.grad((module(x[i : i + 1]) * g[i : i + 1]).sum(), chosen)
        rows.append(torch.cat([part.reshape(-1) for part in parts]).numpy())
    return np.array(rows)


def check(module: nn.Module, x: Tensor, per_unit: int = 1, tolerance: float = 1e-5) -> None:
    """Norms, weighted sums and single gradients of one layer agree with autograd."""
    chosen = [value for value in module.parameters() if value.requires_grad]
    with torch.no_grad():
        g = torch.randn(module(x).shape)
    (layer,) = layers_of(module, chosen)
    with torch.no_grad():
        chunk = ChunkGradients([Use(layer, x, g)], torch.ones(len(x), dtype=torch.bool), per_unit)
        size = sum(value.numel() for value in chosen)
        units = len(x) // per_unit
        factors = torch.linspace(0.5, 2, units, dtype=torch.float64)
        total = torch.full((size,), 7.0, dtype=torch.float64)
        chunk.add(total, factors, fresh=True)
        chunk.add(total, factors, fresh=False)
        bounds = chunk.norms(size).numpy()
        alone = np.array([chunk.alone(unit, size).numpy() for unit in range(units)])
    rows = gradients(module, x, g).reshape(units, per_unit, -1).sum(axis=1)
    norms = np.linalg.norm(rows, axis=1)
    scale = norms.max() + 1e-12
    np.testing.assert_allclose(bounds, norms, rtol=2e-5, atol=tolerance * scale)
    np.testing.assert_allclose(alone, rows, atol=tolerance * scale)
    np.testing.assert_allclose(
        total.numpy(), 2 * factors.numpy() @ rows, atol=9 * tolerance * scale
    )


some = st.integers(1, 4)


@st.composite
def batch(draw: st.DrawFn) -> tuple[int, int]:
    """(records, records per unit)"""
    per_unit = draw(st.integers(1, 3))
    return per_unit * draw(some), per_unit


@QUICK
@given(batch(), st.lists(some, max_size=2), some, some, st.booleans())
def test_linear(sizes: tuple[int, int], middle: list[int], d: int, p: int, bias: bool) -> None:
    check(nn.Linear(d, p, bias=bias), torch.randn(sizes[0], *middle, d), sizes[1])


@pytest.mark.parametrize("positions", [1, 4, 60, 400])
@pytest.mark.parametrize(("d", "p"), [(2, 3), (40, 50)])
def test_linear_in_every_form(positions: int, d: int, p: int) -> None:
    """Short sequences go by Gram matrices, long ones are formed."""
    check(nn.Linear(d, p), torch.randn(3, positions, d))
    check(nn.Linear(d, p), torch.randn(6, positions, d), per_unit=3)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor, int]:
    """A convolution of one or two dimensions, its input, and the records per unit."""
    two, groups = draw(st.booleans()), draw(st.integers(1, 3))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    axes = 2 if two else 1
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    stride = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    padding: object = draw(st.sampled_from(["same", "valid", 0, 1, 2]))
    if padding == "same":
        stride = (1,) * axes
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    kind = nn.Conv2d if two else nn.Conv1d
    module = kind(inputs, outputs, kernel, padding_mode=mode, bias=draw(st.booleans()), **options)
    records, per_unit = draw(batch())
    shape = [draw(st.integers(5, 7)) for _ in range(axes)]
    return module, torch.randn(records, inputs, *shape), per_unit


@QUICK
@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch copies such an input
@given(convolutions())
def test_convolutions(case: tuple[nn.Module, Tensor, int]) -> None:
    check(*case)


@pytest.mark.parametrize("formed", [True, False])
@pytest.mark.parametrize("per_unit", [1, 2])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding="valid", dilation=2),
        nn.Conv2d(3, 4, 4, padding="same", padding_mode="circular"),
        nn.Conv1d(3, 5, 3, stride=2, padding=2),
    ],
)
def test_convolutions_in_both_forms(
    monkeypatch: pytest.MonkeyPatch, module: nn.Module, per_unit: int, formed: bool
) -> None:
    monkeypatch.setattr(layer_conv, "form_is_cheaper", lambda *sizes: formed)
    axes = (8, 9) if isinstance(module, nn.Conv2d) else (9,)
    check(module, torch.randn(4, 3, *axes), per_unit)


def test_many_blocks_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporaries of a few elements, sums of two units: the same result."""
    for module in (layer_gradients, layer_conv):
        monkeypatch.setattr(module, "BLOCK", 3)
        monkeypatch.setattr(module, "SUMMED_UNITS", 2)
    monkeypatch.setattr(layer_gradients, "EXACT_SUM", 0)
    check(nn.Linear(40, 50), torch.randn(7, 3, 40))
    check(nn.Linear(3, 2), torch.randn(7, 30, 3))
    for formed in (True, False):
        monkeypatch.setattr(layer_conv, "form_is_cheaper", lambda *sizes, way=formed: way)
        check(nn.Conv2d(2, 3, 3), torch.randn(6, 2, 5, 5), per_unit=2)


def test_channels_last_and_other_strides() -> None:
    """An input that is not contiguous (opacus unfolds it wrongly)."""
    x = torch.randn(3, 4, 6, 6)
    for stride in (1, 2):
        conv = nn.Conv2d(4, 5, 3, stride=stride, padding=1)
        check(conv, x.to(memory_format=torch.channels_last))
        check(conv, x.transpose(2, 3))
    check(nn.Linear(6, 3), torch.randn(6, 4).T)


@QUICK
@given(batch(), some, some, st.lists(some, max_size=2))
def test_group_norm(sizes: tuple[int, int], groups: int, width: int, rest: list[int]) -> None:
    channels = groups * width
    norm = nn.GroupNorm(groups, channels)
    nn.init.normal_(norm.weight)
    if width * math.prod(rest) == 1:
        rest = [2]  # torch has no norm of a single value
    check(norm, 3 + torch.randn(sizes[0], channels, *rest), sizes[1], tolerance=1e-4)


@QUICK
@given(batch(), st.lists(some, max_size=2), st.lists(st.integers(2, 4), min_size=1, max_size=2))
def test_layer_and_rms_norm(sizes: tuple[int, int], middle: list[int], shape: list[int]) -> None:
    x = 2 + torch.randn(sizes[0], *middle, *shape)
    for norm in (nn.LayerNorm(shape), nn.LayerNorm(shape, bias=False), nn.RMSNorm(shape, eps=1e-6)):
        nn.init.normal_(norm.weight)
        check(norm, x, sizes[1], tolerance=1e-4)


@QUICK
@given(batch(), st.lists(some, max_size=2), st.integers(2, 6), some, st.booleans())
def test_embedding(
    sizes: tuple[int, int], middle: list[int], count: int, width: int, padding: bool
) -> None:
    table = nn.Embedding(count, width, padding_idx=1 if padding else None)
    check(table, torch.randint(count, (sizes[0], *middle)), sizes[1])


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (lambda: nn.Linear(3, 2), (4, 3)),
        (lambda: nn.Conv2d(2, 3, 3), (4, 2, 5, 5)),
        (lambda: nn.GroupNorm(2, 4), (4, 4, 3)),
        (lambda: nn.LayerNorm(5), (4, 5)),
    ],
)
def test_part_of_a_layer(
    module: Callable[[], nn.Module], shape: tuple[int, ...], frozen: str
) -> None:
    layer = module()
    layer.get_parameter(frozen).requires_grad_(False)
    check(layer, torch.randn(shape), tolerance=1e-4)


def test_what_is_known() -> None:
    class Wider(nn.Linear):
        """The same forward."""

    class Other(nn.Linear):
        """Another one."""

        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    assert rule_for(Wider(2, 2), ["weight"]) is not None
    assert rule_for(Other(2, 2), ["weight"]) is None
    assert rule_for(nn.Linear(2, 2), ["weight_orig"]) is None
    assert rule_for(nn.Embedding(3, 2, max_norm=1.0), ["weight"]) is None
    assert rule_for(nn.Embedding(3, 2, scale_grad_by_freq=True), ["weight"]) is None
    model = nn.Sequential(nn.Linear(2, 2), nn.Bilinear(2, 2, 2))
    assert unknown_owners(model, list(model.parameters())) == {"1": "Bilinear"}
    assert unknown_owners(model, list(model[0].parameters())) == {}
