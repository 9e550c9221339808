"""Recipes follow from the graph; int8 files are small, close, and calibrated on public data."""

import numpy as np
import onnx
import pytest
from torch import nn

from collegium.core.errors import InvalidInput, NotBuiltYet, Refused
from collegium.data.public import PublicSet
from collegium.edge.device import infer, open_session
from collegium.edge.distill import Distillation, distil
from collegium.edge.export import export_onnx
from collegium.edge.quantize import FP32, STATIC, graph_kind, quantize, recipes
from collegium.edge.students import build_student


@pytest.fixture(scope="module")
def fp32(teacher: nn.Module, glyphs: PublicSet, raw_digits: np.ndarray) -> bytes:
    student = build_student("auto", teacher, shape=(8, 8), classes=10, seed=0)
    distil(teacher, student, glyphs, recipe=Distillation(steps=60, batch=64), seed=0)
    return export_onnx(student, raw_digits)


@pytest.fixture(scope="module")
def dense() -> bytes:
    model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    return export_onnx(model, np.eye(30, dtype=np.float32))


@pytest.fixture(scope="module")
def int8(fp32: bytes, glyphs: PublicSet) -> bytes:
    return quantize(fp32, STATIC, glyphs)


def test_recipes_follow_the_graph(fp32: bytes, dense: bytes) -> None:
    assert (graph_kind(fp32), graph_kind(dense)) == ("convolutional", "dense")
    assert recipes(fp32, "auto") == (FP32, STATIC)
    assert recipes(dense, "auto") == (FP32,)
    assert recipes(dense, STATIC) == (FP32, STATIC)
    assert recipes(fp32, FP32) == (FP32,)


def test_dynamic_on_a_convolution_is_refused(fp32: bytes, dense: bytes) -> None:
    with pytest.raises(InvalidInput, match="dynamic"):
        recipes(fp32, "dynamic")
    with pytest.raises(NotBuiltYet):
        recipes(dense, "dynamic")


def test_int8_is_small_and_close(fp32: bytes, int8: bytes, glyphs: PublicSet) -> None:
    assert len(int8) < len(fp32) / 3
    exact, rounded = (infer(open_session(model), glyphs.x) for model in (fp32, int8))
    assert (exact.argmax(1) == rounded.argmax(1)).mean() > 0.97
    assert len(np.unique(rounded)) > 256  # the logits themselves stay fp32, so they do not tie


def test_weights_are_int8_per_channel_and_activations_uint8(int8: bytes) -> None:
    model = onnx.load_from_string(int8)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} <= kinds
    scales = [t for t in model.graph.initializer if list(t.dims) in ([24], [32], [28])]
    assert len(scales) >= 3
    assert b"site-packages" not in int8 and not model.metadata_props


def test_quantizing_twice_gives_the_same_bytes(fp32: bytes, int8: bytes, glyphs: PublicSet) -> None:
    assert quantize(fp32, STATIC, glyphs) == int8
    assert quantize(fp32, FP32, glyphs) == fp32


def test_dense_graphs_pass_the_same_preparation(dense: bytes) -> None:
    """The quantizer's own shape inference contradicts itself on these (note, T2)."""
    rows = np.random.default_rng(0).normal(size=(64, 30)).astype(np.float32)
    public = PublicSet(name="rows", origin="synthetic", x=rows)
    exact, rounded = (
        infer(open_session(model), rows) for model in (dense, quantize(dense, STATIC, public))
    )
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_private_calibration_is_refused(fp32: bytes, glyphs: PublicSet) -> None:
    private = PublicSet(name="records", origin="public", x=glyphs.x)
    object.__setattr__(private, "origin", "private")
    with pytest.raises(Refused, match="calibration"):
        quantize(fp32, STATIC, private)
