"""onnxruntime's quantizers behind one call each: bytes in, small bytes out, nothing left behind."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .compact import INPUT, compact, deterministic_bytes
from .quantize_graph import Make, float_logits, input_dtype
from .quantize_target import Processor

BATCH = 64  # calibration records in one call, at most
BATCH_VALUES = 1 << 18  # raw values in one call: every activation of it is held in memory
HISTOGRAM_VALUES = 1 << 22  # raw values whose activations a histogram counts, and at least
HISTOGRAM_LEAST = 32  # so many records: it takes seconds per million activations


def static(*, percentile: float = 0.0, operators: Sequence[str] = (), signed: bool = False) -> Make:
    """Return a recipe of quantize-dequantize pairs with fixed ranges of activations.

    The ranges are the smallest and largest values seen, or with ``percentile`` those that leave
    the rest out; ``operators`` limits what is quantized, all that can be by default; ``signed``
    makes activations int8 whatever the processor.
    """

    def make(model: bytes, records: NDArray[Any], cpu: Processor) -> bytes:
        activations = QuantType.QInt8 if signed or cpu.signed else QuantType.QUInt8
        method = CalibrationMethod.Percentile if percentile else CalibrationMethod.MinMax

        def run(ready: Path, out: Path) -> None:
            kind = input_dtype(onnx.load(ready))
            reader = _Calibration(records.astype(kind), histogram=bool(percentile))
            options: dict[str, Any] = {"CalibStridedMinMax": reader.batch}
            if percentile:
                options["CalibPercentile"] = percentile
            quantize_static(
                ready,
                out,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                activation_type=activations,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=cpu.spare_bit,
                calibrate_method=method,
                extra_options=options,
            )

        return _made(model, run)

    return make


def dynamic(*operators: str) -> Make:
    """Return a recipe whose activations are quantized by their range at the moment.

    Of matrix products only those with constant weights; needs no calibration records.
    """

    def make(model: bytes, records: NDArray[Any], cpu: Processor) -> bytes:
        del records

        def run(ready: Path, out: Path) -> None:
            quantize_dynamic(
                ready,
                out,
                op_types_to_quantize=list(operators),
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=cpu.spare_bit,
                extra_options={"MatMulConstBOnly": True},
            )

        return _made(model, run)

    return make


def _made(model: bytes, run: Callable[[Path, Path], None]) -> bytes:
    """Return what ``run`` makes of the prepared model file, stripped of all notes."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, ready, out = (Path(folder) / name for name in ("a.onnx", "b.onnx", "c.onnx"))
        graph = onnx.load_from_string(model)
        del graph.graph.value_info[:]  # stale ones contradict the quantizer's own inference
        source.write_bytes(graph.SerializeToString())
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        run(ready, out)
        made = onnx.load(out)
    float_logits(made)
    return deterministic_bytes(compact(made))


class _Calibration(CalibrationDataReader):
    """Feeds raw records to the runtime's calibrator, one batch for each range that it sets."""

    def __init__(self, x: NDArray[Any], *, histogram: bool) -> None:
        values = max(1, int(np.prod(x.shape[1:])))
        if histogram:
            x = x[: max(HISTOGRAM_LEAST, HISTOGRAM_VALUES // values)]
        self.batch = max(1, min(BATCH, BATCH_VALUES // values, len(x)))
        self.x = x[: len(x) // self.batch * self.batch]  # whole batches: the calibrator wants it
        self.rest: list[NDArray[Any]] = []

    def __len__(self) -> int:
        return len(self.x)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Make ready the records of one range, which is one batch."""
        self.rest = [self.x[start_index:end_index]]

    def get_next(self) -> dict[str, NDArray[Any]]:
        """Return the next feed; an empty one ends the range."""
        return {INPUT: self.rest.pop()} if self.rest else {}


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hush the quantizer's advice on the root logger and its prints; errors are exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
