"""The widest student whose file is small enough: what a model.onnx takes, estimated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from ..core.errors import InvalidInput
from .export import export_onnx

Maker = Callable[[int], nn.Module]
"""A student of its family by width (channels, units, layers)."""

GRAPH = 600  # bytes of the graph itself: inputs, outputs, scaling of raw values
LAYER = 440  # bytes of the nodes of one layer: operator, activation, quantization around them
CHANNEL = 5  # bytes per output channel (or row of a table): its scale, its zero point
INT8, FLOAT = 1, 4  # bytes per weight


def estimated_bytes(model: nn.Module, *, quantized: bool = True) -> int:
    """Return about how large a model's file will be: a few percent more, up to a quarter of 10 kB.

    int8: one byte per weight of convolutions, linear layers and embeddings, ``CHANNEL`` per
    output channel; all else four bytes. The gate measures the real file.
    """
    total, counted = GRAPH, set[int]()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            weight = module.weight
            counted |= {id(value) for value in module.parameters(recurse=False)}
            size = weight.numel() * (INT8 if quantized else FLOAT)
            total += size + LAYER + CHANNEL * (weight.shape[0] if quantized else 0)
        elif isinstance(module, nn.BatchNorm2d):  # becomes part of the convolution before it
            counted |= {id(value) for value in module.parameters(recurse=False)}
    rest = sum(value.numel() for value in model.parameters() if id(value) not in counted)
    return total + FLOAT * rest


def exported_bytes(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Return how large the fp32 file of a model of rows is: training does not change that.

    ``shape`` is one raw record's.
    """
    return len(export_onnx(model, np.zeros((2, *shape), dtype=np.float32)))


def widest_exported(
    maker: Maker, low: int, high: int, *, size_bytes: int, below: int, shape: tuple[int, ...]
) -> int:
    """Return the largest width whose real fp32 file is at most ``size_bytes``; as ``widest``.

    The estimate knows nothing of a table's first layer: what it misses is measured and taken off.
    """
    allowed = size_bytes
    while True:
        try:
            width = widest(maker, low, high, size_bytes=allowed, below=below, quantized=False)
        except InvalidInput:
            if allowed == size_bytes:
                raise
            least = exported_bytes(maker(low), shape)
            if least <= size_bytes:
                return low
            raise _too_small(size_bytes, least) from None
        excess = exported_bytes(maker(width), shape) - size_bytes
        if excess <= 0:
            return width
        allowed = estimated_bytes(maker(width), quantized=False) - excess


def widest(
    maker: Maker, low: int, high: int, *, size_bytes: int, below: int, quantized: bool = True
) -> int:
    """Return the largest width whose file is at most ``size_bytes``.

    Widths from ``low`` to ``high``; the student has fewer than ``below`` parameters. Both grow
    with the width. Raises ``InvalidInput`` when even the narrowest is too large.
    """

    def fits(width: int) -> bool:
        model = maker(width)
        parameters = sum(value.numel() for value in model.parameters())
        return parameters < below and estimated_bytes(model, quantized=quantized) <= size_bytes

    if not fits(low):
        least = estimated_bytes(maker(low), quantized=quantized)
        raise _too_small(size_bytes, least)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _too_small(size_bytes: int, least: int) -> InvalidInput:
    return InvalidInput(
        f"[edge] student = 'size:{size_bytes}' is too small",
        why=f"the smallest student of this family takes about {least} bytes",
        cure=f'write "size:{least}" or more, or student = "none"',
    )
