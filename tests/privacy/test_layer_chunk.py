"""Whatever one unit holds, it moves the clipped sum by at most C (1 + 1e-5)."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from collegium.core.mechanism import CLIP_SLACK
from collegium.privacy.layer_chunk import ChunkGradients
from collegium.privacy.layer_gradients import ROUNDING, Products, gram_size
from collegium.privacy.layer_recording import Use
from collegium.privacy.layers import Layer, layers_of

torch.set_num_threads(1)
SCALES = [1e-12, 1e-6, 1.0, 1e6, 1e12]
CLIPS = [1e-3, 1.0, 50.0]
KINDS = {
    # name: (layer, shape of a record's input, and of its output); Gram products and formed ones
    "row": (nn.Linear(5, 3), (5,), (3,)),
    "short sequence": (nn.Linear(48, 40), (4, 48), (4, 40)),
    "long sequence": (nn.Linear(3, 2), (64, 3), (64, 2)),
    "wide convolution": (nn.Conv2d(16, 16, 3, padding=1), (16, 2, 2), (16, 2, 2)),
    "narrow convolution": (nn.Conv2d(1, 2, 3), (1, 8, 8), (2, 6, 6)),
    "layer norm": (nn.LayerNorm(6), (3, 6), (3, 6)),
    "group norm": (nn.GroupNorm(2, 4), (4, 5), (4, 5)),
}


def clipped(layers: Sequence[Layer], records: list[tuple[Tensor, Tensor]], clip: float) -> Tensor:
    """The clipped sum of records (input, gradient of the output)."""
    size = sum(value.numel() for layer in layers for value in layer.module.parameters())
    total = torch.zeros(size, dtype=torch.float64)
    if records:
        a, g = (torch.stack(parts) for parts in zip(*records, strict=True))
        uses = [Use(layer, a, g) for layer in layers]
        keep = torch.ones(len(a), dtype=torch.bool)
        with torch.no_grad():
            ChunkGradients(uses, keep, 1).add_clipped(total, clip, fresh=True)
    return total


@st.composite
def hostile(draw: st.DrawFn, shape: tuple[int, ...]) -> Tensor:
    """Numbers of one record: of any scale, repeated, opposed, mixed with zeros and denormals."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal(shape)
    trick = draw(st.sampled_from(["plain", "equal", "opposed", "zero", "denormal", "mixed"]))
    if trick == "equal":
        values = np.broadcast_to(values.reshape(-1)[:1].reshape((1,) * len(shape)), shape)
    elif trick == "opposed":  # each number and nearly its opposite: sums cancel
        flat = values.reshape(-1)
        half = len(flat) // 2
        flat[half : 2 * half] = -flat[:half] * (1 + draw(st.sampled_from([0, 1e-7, 1e-4])))
        values = flat.reshape(shape)
    elif trick == "zero":
        values = np.zeros(shape)
    elif trick == "denormal":
        values = values * 1e-42
    elif trick == "mixed":
        values = values * 10.0 ** rng.integers(-12, 13, size=shape)
    return torch.from_numpy(np.array(values * draw(st.sampled_from(SCALES)), dtype=np.float32))


@st.composite
def scene(draw: st.DrawFn) -> tuple[str, float, list[tuple[Tensor, Tensor]], int]:
    """A layer, a clip norm, some hostile records and the one that leaves."""
    name = draw(st.sampled_from(sorted(KINDS)))
    _, inputs, outputs = KINDS[name]
    count = draw(st.integers(1, 5))
    records = [(draw(hostile(inputs)), draw(hostile(outputs))) for _ in range(count)]
    if draw(st.booleans()):
        records += [records[0]] * draw(st.integers(1, 20))
    clip = draw(st.sampled_from(CLIPS))
    return name, clip, records, draw(st.integers(0, len(records) - 1))


@settings(max_examples=400, deadline=None)
@given(scene())
def test_one_record_moves_the_sum_by_at_most_the_clip_norm(
    case: tuple[str, float, list[tuple[Tensor, Tensor]], int],
) -> None:
    name, clip, records, gone = case
    module = KINDS[name][0]
    layers = layers_of(module, list(module.parameters()))
    whole = clipped(layers, records, clip)
    without = clipped(layers, records[:gone] + records[gone + 1 :], clip)
    assert torch.isfinite(whole).all()
    assert float((whole - without).norm()) <= clip * (1 + CLIP_SLACK)
    assert float(clipped(layers, [records[gone]], clip).norm()) <= clip * (1 + CLIP_SLACK)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_patient_moves_the_sum_by_at_most_the_clip_norm(data: st.DataObject) -> None:
    """The same with several records of a unit, which may cancel each other."""
    name = data.draw(st.sampled_from(["row", "short sequence", "wide convolution"]))
    module, inputs, outputs = KINDS[name]
    per_unit = data.draw(st.integers(2, 4))
    a = torch.stack([data.draw(hostile(inputs)) for _ in range(per_unit)])
    g = torch.stack([data.draw(hostile(outputs)) for _ in range(per_unit)])
    if data.draw(st.booleans()):
        a, g = torch.cat([a, a]), torch.cat([g, -g])
    clip = data.draw(st.sampled_from(CLIPS))
    total = torch.zeros(sum(v.numel() for v in module.parameters()), dtype=torch.float64)
    with torch.no_grad():
        (layer,) = layers_of(module, list(module.parameters()))
        keep = torch.ones(len(a), dtype=torch.bool)
        chunk = ChunkGradients([Use(layer, a, g)], keep, len(a))
        chunk.add_clipped(total, clip, fresh=True)
    assert torch.isfinite(total).all()
    assert float(total.norm()) <= clip * (1 + CLIP_SLACK)


def cancelling(scale: float) -> tuple[Tensor, Tensor]:
    """A sequence whose terms of norm about ``scale`` cancel to a gradient of norm about 1."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(1, 2, 48, generator=rng)
    g = torch.randn(1, 2, 40, generator=rng)
    a[:, 1] = a[:, 0]
    g[:, 1] = -g[:, 0] * (1 - 1 / scale)
    return a, g * scale / (a[:, 0].norm() * g[:, 0].norm())


def test_a_gram_product_in_float32_would_cancel_to_nothing() -> None:
    """The trap of notes/privacy.md: the bound here is not below the true norm, and says so."""
    a, g = cancelling(1e7)
    true = float(torch.linalg.matrix_norm(g[0].double().T @ a[0].double()))
    naive = float(((g[0] @ g[0].T) * (a[0] @ a[0].T)).sum())
    assert naive <= 0 or abs(naive**0.5 / true - 1) > 0.05
    size = Products(g, a).size()
    assert float(size.squared.sqrt()) >= true * (1 - 1e-12)
    assert ROUNDING * float(size.mass) > 0.1 * true  # far too much for a float32 sum


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4, 1e5, 1e6])
def test_units_that_cancel_are_formed_alone(scale: float) -> None:
    """Their sum is exact, and never above C."""
    a, g = cancelling(scale)
    module = nn.Linear(48, 40, bias=False)
    (layer,) = layers_of(module, list(module.parameters()))
    chunk = ChunkGradients([Use(layer, a, g)], torch.ones(1, dtype=torch.bool), 1)
    true = g[0].double().T @ a[0].double()
    clip = 0.5 * float(true.norm())
    total = torch.zeros(true.numel(), dtype=torch.float64)
    with torch.no_grad():
        chunk.add_clipped(total, clip, fresh=True)
        norm = float(chunk.norms(len(total))[0])
    assert norm == pytest.approx(float(true.norm()), rel=3e-5)
    assert float(total.norm()) <= clip * (1 + 1e-12)
    expected = true.flatten() * clip / true.norm()
    assert float((total - expected).norm()) <= 3e-5 * clip


def test_a_gram_square_below_zero_is_no_zero_norm() -> None:
    """Made so: two rows that cancel exactly but for rounding in float64."""
    g = torch.tensor([[[1.0, 3.0], [-1.0, -3.0]]], dtype=torch.float64) / 7
    a = torch.tensor([[[1.0, 5.0], [1.0, 5.0]]], dtype=torch.float64) / 3
    size = gram_size(g, a)
    assert float(size.squared) > 0
    assert float(size.mass) == pytest.approx(2 * (10 * 26) ** 0.5 / 21)


def test_beyond_float32_a_record_contributes_nothing() -> None:
    """Formed in float32 it would overflow; others stay as they are."""
    module = KINDS["long sequence"][0]
    layers = layers_of(module, list(module.parameters()))
    rng = torch.Generator().manual_seed(0)
    one = (torch.randn(64, 3, generator=rng), torch.randn(64, 2, generator=rng))
    huge = (torch.full((64, 3), 1e30), torch.full((64, 2), 1e30))
    torch.testing.assert_close(clipped(layers, [one, huge], 1.0), clipped(layers, [one], 1.0))
