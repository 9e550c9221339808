"""A layer without a form in ONNX is named; dynamic sizes and types are kept; nothing leaks (T7)."""

import getpass
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from collegium.core.errors import InvalidInput
from collegium.data.public import PublicSet
from collegium.edge.device import infer, open_session
from collegium.edge.export import export_onnx, raw_dtype
from collegium.edge.quantize import STATIC, quantize

SCRIPT = """
import numpy as np, torch
torch.set_num_threads(1)
from torch import nn
from collegium.data.public import PublicSet
from collegium.edge.export import export_onnx
from collegium.edge.quantize import quantize
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
x = np.random.default_rng(0).integers(0, 256, (8, 1, 6, 6)).astype(np.uint8)
raw = export_onnx(model, x)
small = quantize(raw, "int8-static", PublicSet(name="x", origin="synthetic", x=x))
open("a.onnx", "wb").write(raw)
open("b.onnx", "wb").write(small)
"""  # noqa: E501


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ x.mT).sum((1, 2))[:, None]


class Holder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.conv, self.inner = nn.Conv2d(3, 3, 1), inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.conv(x))


@pytest.mark.parametrize(("inner", "why"), [(Branch(), "values"), (Spectrum(), "eigh")])
def test_a_layer_without_a_form_is_named(inner: nn.Module, why: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    with pytest.raises(InvalidInput, match=f"'.*inner' \\({type(inner).__name__}\\)") as caught:
        export_onnx(Holder(inner), x)
    assert why in str(caught.value)


def test_raw_types() -> None:
    kinds = {"u1": "u1", "i4": "i4", "i8": "i4", "u2": "i4", "f8": "f4", "f4": "f4", "?": "f4"}
    assert {given: raw_dtype(given).str[1:] for given in kinds} == kinds


def test_the_first_node_makes_floats_of_pixels() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 12)).astype(np.uint8)
    raw = export_onnx(nn.Linear(12, 2), x)
    graph = onnx.load_from_string(raw).graph
    assert graph.node[0].op_type == "Cast" and list(graph.node[0].input) == ["x"]
    assert open_session(raw).get_inputs()[0].type == "tensor(uint8)"


@pytest.mark.slow
def test_two_folders_one_digest_and_no_trace_of_either(tmp_path: Path) -> None:
    """Two fresh processes, in folders of other names and lengths, write the same two files."""
    places = [tmp_path / "first-place", tmp_path / "second"]
    for folder in places:
        folder.mkdir()
    started = [subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=folder) for folder in places]
    assert [each.wait() for each in started] == [0, 0]
    words = ["first-place", str(tmp_path), "site-packages", "stack_trace", "nn.Sequential"]
    words += [word for word in (str(Path.home()), getpass.getuser()) if len(word) > 4]
    for file in ("a.onnx", "b.onnx"):
        first, second = ((folder / file).read_bytes() for folder in places)
        assert first == second
        assert not [word for word in words if word.encode() in first]
        assert not re.search(rb"\.py\b", first)


@st.composite
def nets(draw: Any) -> tuple[nn.Module, tuple[int, ...]]:
    """A small CNN or multilayer perceptron and the shape of its records."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    width = draw(st.sampled_from([4, 8, 16]))
    if draw(st.booleans()):
        side, channels = draw(st.integers(5, 9)), draw(st.integers(1, 3))
        norm = draw(st.sampled_from([nn.BatchNorm2d(width), nn.GroupNorm(2, width), nn.Identity()]))
        body = [nn.Conv2d(channels, width, 3, padding=1, bias=draw(st.booleans())), norm, nn.ReLU()]
        end = [nn.AdaptiveAvgPool2d(draw(st.sampled_from([1, (1, 1)]))), nn.Flatten()]
        return nn.Sequential(*body, *end, nn.Linear(width, 3)), (channels, side, side)
    inputs = draw(st.integers(2, 12))
    act = draw(st.sampled_from([nn.ReLU(), nn.Tanh(), nn.GELU()]))
    layers = [nn.Linear(inputs, width), act, nn.Dropout(0.5), nn.Linear(width, 3)]
    return nn.Sequential(*layers), (inputs,)


@settings(max_examples=4, deadline=None)
@given(made=nets())
def test_random_nets_export_and_quantize(made: tuple[nn.Module, tuple[int, ...]]) -> None:
    model, shape = made
    x = np.random.default_rng(1).normal(size=(40, *shape)).astype(np.float32)
    raw = export_onnx(model, x[:3])
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(infer(open_session(raw), x), expected, atol=1e-4)
    small = quantize(raw, STATIC, PublicSet(name="x", origin="synthetic", x=x))
    found = infer(open_session(small), x)
    spread = float(np.abs(expected).max())
    assert np.abs(found - expected).max() < 0.25 * spread + 0.02
