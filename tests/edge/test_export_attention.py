"""Masked attention without guards and tiny numbers answers as before; what may act stays."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from collegium.edge.attention import MASKED, lighten_attention
from collegium.edge.device import infer, open_session
from collegium.edge.export import export_onnx


class Masked(nn.Module):
    """Token numbers to the mean of what attention made of those that are not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        real = x.long() != 0
        seen = self.table(x.long())
        lowest = torch.finfo(torch.float32).min
        bias = torch.where(real, 0.0, lowest)[:, None, None]
        query, key = self.mix(seen).unsqueeze(1), seen.unsqueeze(1)
        mixed = functional.scaled_dot_product_attention(query, key, key, attn_mask=bias)[:, 0]
        weight = real.float().unsqueeze(-1)
        return self.head((mixed * weight).sum(1) / weight.sum(1).clamp(min=1))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    x = np.random.default_rng(0).integers(1, 9, (6, 7)).astype(np.int32)
    x[0, 2:] = x[3, 5:] = 0
    x[5] = 0  # a text without any token
    return x


def test_masked_tokens_have_no_weight(tokens: np.ndarray) -> None:
    torch.manual_seed(0)
    model = Masked().eval()
    raw = export_onnx(model, tokens)
    graph = onnx.load_from_string(raw).graph
    lowest = min(float(numpy_helper.to_array(each).min()) for each in graph.initializer
                 if each.data_type == TensorProto.FLOAT)  # fmt: skip
    assert lowest == MASKED
    assert not [node for node in graph.node if node.op_type == "IsNaN"]
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(infer(open_session(raw), tokens), expected, atol=1e-6)
    other = tokens.copy()
    other[0, :2] = other[0, 1::-1]
    assert not np.array_equal(infer(open_session(raw), other)[1:2], expected[0:1])


def guarded(lowest: float) -> onnx.GraphProto:
    """A softmax of scores and a mask, guarded as the exporter does it."""
    nodes = [
        helper.make_node("Where", ["m", "zero", "low"], ["bias"]),
        helper.make_node("Add", ["s", "bias"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["soft"], axis=-1),
        helper.make_node("IsNaN", ["soft"], ["nan"]),
        helper.make_node("Where", ["nan", "zero", "soft"], ["safe"]),
        helper.make_node("Identity", ["safe"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(value).reshape(()), name)
        for name, value in (("zero", 0.0), ("low", lowest))
    ]
    return helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("m", TensorProto.BOOL, ["n", 4]),
         helper.make_tensor_value_info("s", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])], constants,
    )  # fmt: skip


def test_a_guard_that_can_act_stays() -> None:
    """Of an infinite mask a row without any real token is NaN, and the guard makes zeros of it."""
    graph = guarded(-np.inf)
    before = graph.SerializeToString()
    lighten_attention(graph)
    assert graph.SerializeToString() == before
    finite = guarded(-3e38)
    lighten_attention(finite)
    assert [node.op_type for node in finite.node] == ["Where", "Add", "Softmax", "Identity"]


def test_a_bias_that_is_no_mask_stays() -> None:
    graph = guarded(-5.0)
    lighten_attention(graph)
    assert graph.node[0].input[2] == "low"
