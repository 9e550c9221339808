"""PyTorch to a compact, portable ONNX file: preprocessing inside, nothing of the build machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from ..core.errors import GateFailed
from ..models.preprocess import TablePreprocess
from .compact import INPUT, OUTPUT, compact, deterministic_bytes
from .device import infer, open_session
from .export_graph import OPSET, translated
from .merging import deployable

__all__ = ["INPUT", "OPSET", "OUTPUT", "TOLERANCE", "export_onnx", "raw_dtype"]

TOLERANCE = 1e-4  # of the largest logit; measured differences are 1e-7 .. 6e-6


class RawInput(nn.Module):
    """A model that reads floats, behind records of the type in which readers give them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) raw records of any type to (batch, outputs)."""
        return self.model(x.to(torch.float32))


def raw_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the type in which a device hands records of this one over.

    uint8 (images) and int32 (tokens) stay; other whole numbers become int32, all else float32.
    """
    kind = np.dtype(dtype)
    if kind == np.uint8:
        return kind
    return np.dtype(np.int32 if kind.kind in "iu" else np.float32)


def export_onnx(model: nn.Module, sample: NDArray[Any]) -> bytes:
    """Return the model as ONNX bytes: raw records (n, ...) in, logits (n, classes) out.

    ``sample`` holds at least two raw records; its type (``raw_dtype``) is that of the graph's
    input, and the first node makes floats of it. Adapters are merged, BatchNorm is folded, the
    batch axis is free, and no name, path or source line of the build machine stays in the file.
    File and module must agree on the sample, in any number, and where a table may lack values on
    records that do. Raises ``GateFailed`` when they do not, ``InvalidInput`` naming the layer
    that has no form in ONNX.
    """
    records = np.ascontiguousarray(sample, dtype=raw_dtype(sample.dtype))
    simple = deployable(model)
    given = simple if records.dtype == np.float32 else RawInput(simple).eval()
    graph = translated(given, torch.from_numpy(records[:2]))
    raw = deterministic_bytes(compact(graph))
    _check_against_eager(model, raw, _with_gaps(model, records))
    return raw


def _with_gaps(model: nn.Module, records: NDArray[Any]) -> NDArray[Any]:
    """Return the records, and for tables copies of them with every value missing in its turn."""
    table = next((m for m in model.modules() if isinstance(m, TablePreprocess)), None)
    if table is None or records.ndim != 2:
        return records
    first = 0 if table.reads_missing else table.numbers
    columns = np.arange(first, records.shape[1])
    if len(columns) == 0:
        return records
    spoilt = np.repeat(records[:1], len(columns), axis=0)
    spoilt[np.arange(len(columns)), columns] = np.where(columns < table.numbers, np.nan, -1.0)
    return np.concatenate([records, spoilt])


def _check_against_eager(model: nn.Module, raw: bytes, records: NDArray[Any]) -> None:
    """Raise ``GateFailed`` unless file and module give the same logits on raw records."""
    was_training = model.training
    try:
        with torch.no_grad():
            expected = model.eval()(torch.from_numpy(records).to(torch.float32)).numpy()
    finally:
        model.train(was_training)
    session = open_session(raw)
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    for count in sorted({1, min(3, len(records)), len(records)}):
        found, wanted = infer(session, records[:count]), expected[:count]
        worst = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf
        if not worst <= limit:
            raise GateFailed(
                f"the exported model differs from the trained one by {worst:.2g}",
                why="both must answer alike on raw records, however many come together",
                cure="report this model's layers as a bug of the export",
            )
