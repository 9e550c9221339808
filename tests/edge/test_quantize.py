"""Int8 files are small, close to their fp32, and calibrated on public data alone."""

import numpy as np
import onnx
import pytest
from torch import nn

from collegium.core.errors import Refused
from collegium.data.public import PublicSet
from collegium.edge.device import infer, open_session
from collegium.edge.distill import Distillation, distil
from collegium.edge.export import export_onnx
from collegium.edge.quantize import CONV, FP32, PERCENTILE, S8S8, STATIC, quantize
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


def test_every_method_makes_another_file(fp32: bytes, int8: bytes, glyphs: PublicSet) -> None:
    """Entropy calibration gave MinMax's bytes (note, T3), so it is not offered."""
    files = {each: quantize(fp32, each, glyphs) for each in (PERCENTILE, CONV, S8S8)}
    assert len({int8, *files.values()}) == 4
    exact = infer(open_session(fp32), glyphs.x)
    for model in files.values():
        assert len(model) < len(fp32) / 3
        found = infer(open_session(model), glyphs.x)
        assert (exact.argmax(1) == found.argmax(1)).mean() > 0.95


def test_the_target_decides_signs_and_bits(fp32: bytes, int8: bytes, glyphs: PublicSet) -> None:
    arm, spare = (quantize(fp32, STATIC, glyphs, target) for target in ("arm", "x86"))
    assert arm == quantize(fp32, S8S8, glyphs)
    zero_points = [activation_zero_points(each) for each in (arm, int8)]
    assert zero_points == [{onnx.TensorProto.INT8}, {onnx.TensorProto.UINT8}]
    assert largest_weight(spare) <= 64 < largest_weight(arm)  # 7 bits leave room for two products


def activation_zero_points(raw: bytes) -> set[int]:
    graph = onnx.load_from_string(raw).graph
    kinds = {each.name: each.data_type for each in graph.initializer}
    return {kinds[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}


def largest_weight(raw: bytes) -> int:
    graph = onnx.load_from_string(raw).graph
    return max(
        int(np.abs(onnx.numpy_helper.to_array(each).astype(int)).max())
        for each in graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and each.dims
    )


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
