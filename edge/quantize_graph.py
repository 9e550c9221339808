"""What kind of net an ONNX graph is, and the small repairs around quantizing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto

from .compact import OUTPUT
from .quantize_target import Processor

GraphKind = Literal["convolutional", "transformer", "dense"]
Make = Callable[[bytes, NDArray[Any], Processor], bytes]
"""ONNX bytes, raw calibration records (n, ...) and a processor to quantized ONNX bytes."""

_ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})
_ELEMENTS: dict[int, type[np.generic]] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.UINT8: np.uint8,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.INT64: np.int64,
}


def graph_kind(model: bytes) -> GraphKind:
    """Return what the graph is by its operators; the recipe follows from it.

    A product of two activations is attention, which a few convolutions (the patches of a vision
    transformer) do not change.
    """
    graph = onnx.load_from_string(model).graph
    if _attends(graph):
        return "transformer"
    operators = {node.op_type for node in graph.node}
    return "convolutional" if operators & {"Conv", "ConvTranspose"} else "dense"


def weight_count(model: bytes) -> int:
    """Return the number of float weights in the file."""
    return sum(
        int(np.prod(tensor.dims))
        for tensor in onnx.load_from_string(model).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )


def input_dtype(model: ModelProto) -> type[np.generic]:
    """Return the element type of the graph's first input."""
    return _ELEMENTS.get(model.graph.input[0].type.tensor_type.elem_type, np.float32)


def float_logits(model: ModelProto) -> None:
    """Take the last quantize-dequantize pair away, in place: rounded logits would tie."""
    made = {name: node for node in model.graph.node for name in node.output}
    last = made[OUTPUT]
    before = made.get(last.input[0])
    if last.op_type != "DequantizeLinear" or before is None or before.op_type != "QuantizeLinear":
        return
    made[before.input[0]].output[:] = [OUTPUT]
    for node in (last, before):
        model.graph.node.remove(node)


def _attends(graph: GraphProto) -> bool:
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return any(
        node.op_type in _ATTENTION or (node.op_type == "MatMul" and not constants & set(node.input))
        for node in graph.node
    )
