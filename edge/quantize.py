"""Fewer bits per weight where the graph gains by it: static int8 for convolutions, else fp32."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from ..core.errors import InvalidInput, NotBuiltYet
from ..data.public import PublicSet
from ..privacy.origin import require_releasable
from .export import INPUT, OUTPUT, compact

FP32, STATIC = "fp32", "int8-static"
GraphKind = Literal["convolutional", "dense"]
CALIBRATION_BATCH = 64


def graph_kind(model: bytes) -> GraphKind:
    """Return whether a graph convolves; the recipe follows from it."""
    operators = {node.op_type for node in onnx.load_from_string(model).graph.node}
    return "convolutional" if "Conv" in operators else "dense"


def recipes(model: bytes, wanted: str) -> tuple[str, ...]:
    """Return the candidates of a recipe, fp32 first.

    ``auto``: fp32 and static int8 for convolutions; fp32 alone for small dense nets, which int8
    slows down. Dynamic int8 of a convolution is refused: it is about five times slower than
    fp32 (microsoft/onnxruntime#12854). Raises ``InvalidInput`` or ``NotBuiltYet``.
    """
    kind = graph_kind(model)
    if wanted == "auto":
        return (FP32, STATIC) if kind == "convolutional" else (FP32,)
    if wanted == FP32:
        return (FP32,)
    if wanted == STATIC:
        return (FP32, STATIC)
    if wanted in ("dynamic", "int8-dynamic") and kind == "convolutional":
        raise InvalidInput(
            "dynamic quantization of a convolutional graph",
            why="the runtime has no fast kernel for it: it would be several times slower",
            cure=f"use auto, {FP32} or {STATIC}",
        )
    raise NotBuiltYet(f"the recipe '{wanted}' is not built yet", cure=f"use auto, {FP32}, {STATIC}")


def quantize(model: bytes, recipe: str, calibration: PublicSet) -> bytes:
    """Return the candidate's ONNX bytes: static QDQ, uint8 activations, int8 weights per channel.

    Activation ranges are the smallest and largest values seen on ``calibration``, which is
    therefore an input that leaves with the model. Raises ``Refused`` when it is private.
    """
    if recipe == FP32:
        return model
    require_releasable(calibration.origin, "calibration")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, ready, out = (Path(folder) / name for name in ("a.onnx", "b.onnx", "c.onnx"))
        source.write_bytes(model)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            out,
            _Calibration(calibration.x.astype(np.float32)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        graph = onnx.load(out)
    _float_logits(graph)
    return compact(graph).SerializeToString(deterministic=True)


def _float_logits(model: ModelProto) -> None:
    """Take the last quantize-dequantize pair away: rounded logits would tie."""
    made = {name: node for node in model.graph.node for name in node.output}
    last = made[OUTPUT]
    before = made.get(last.input[0])
    if last.op_type != "DequantizeLinear" or before is None or before.op_type != "QuantizeLinear":
        return
    made[before.input[0]].output[:] = [OUTPUT]
    for node in (last, before):
        model.graph.node.remove(node)


class _Calibration(CalibrationDataReader):
    """Feeds raw records in batches to the runtime's calibrator."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        self.batches = iter(
            x[start : start + CALIBRATION_BATCH] for start in range(0, len(x), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]]:
        """Return the next feed; an empty one ends the calibration."""
        batch = next(self.batches, None)
        return {} if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hush the quantizer's advice on the root logger; its errors are exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
