"""PyTorch to a compact, portable ONNX file: preprocessing inside, nothing of the build machine."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Generator
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..core.errors import GateFailed
from .device import infer, open_session

OPSET = 20
INPUT, OUTPUT = "x", "logits"
TOLERANCE = 1e-4  # of the largest logit; measured differences are 1e-7 .. 6e-6


def export_onnx(model: nn.Module, sample: NDArray[np.float32]) -> bytes:
    """Return the model as ONNX bytes: raw records (n, ...) in, logits (n, classes) out.

    BatchNorm is folded, the batch axis is free, and no name, path or source line of the build
    machine stays in the file. ``sample`` holds at least two raw records, on which file and
    module must agree. Raises ``GateFailed`` when they do not.
    """
    folded = fold_batchnorm(model).eval()
    inputs = torch.from_numpy(np.ascontiguousarray(sample, dtype=np.float32))
    with _quiet():
        program = torch.onnx.export(
            folded,
            (inputs[:2],),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    if program is None:
        raise GateFailed("the exporter returned no model")
    raw = compact(program.model_proto).SerializeToString(deterministic=True)
    _check_against_eager(model, raw, inputs)
    return raw


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Return a copy in which each BatchNorm after a convolution is part of the convolution."""
    folded = copy.deepcopy(model).eval()
    for parent in folded.modules():
        if not isinstance(parent, nn.Sequential):
            continue
        layers: list[nn.Module] = []
        for layer in parent.children():
            before = layers[-1] if layers else None
            if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                layers[-1] = fuse_conv_bn_eval(before, layer)
            else:
                layers.append(layer)
        for name in [name for name, _ in parent.named_children()]:
            delattr(parent, name)
        for index, layer in enumerate(layers):
            parent.add_module(str(index), layer)
    return folded


def compact(model: ModelProto) -> ModelProto:
    """Strip metadata, doc strings and value infos, and give every value a short name.

    The exporter leaves stack traces with file paths in node metadata (torch 2.15); they would
    name the build machine and make the digest depend on it.
    """
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for node in graph.node:
        node.name = ""
    model.producer_name, model.producer_version, model.domain = "collegium", "", ""
    model.graph.name = "g"
    del model.functions[:]
    del model.graph.value_info[:]
    if not any(part.HasField("g") for node in model.graph.node for part in node.attribute):
        # a branch or loop body refers to outer values by name: such a graph keeps its names
        _merge_equal_constants(model.graph)
        _rename(model.graph)
    return model


def _merge_equal_constants(graph: GraphProto) -> None:
    """Keep one initializer of each value: quantization repeats zero points and scales."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    alias: dict[str, str] = {}
    kept: list[Any] = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), values.tobytes())
        alias[tensor.name] = first.setdefault(key, tensor.name)
        if alias[tensor.name] == tensor.name:
            kept.append(numpy_helper.from_array(values, tensor.name))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in graph.node:
        node.input[:] = [alias.get(name, name) for name in node.input]


def _rename(graph: GraphProto) -> None:
    """Name values 0, 1, 2, ... in graph order; input and output keep their names."""
    numbers = count()
    names = {"": "", INPUT: INPUT, OUTPUT: OUTPUT}

    def short(name: str) -> str:
        if name not in names:
            names[name] = str(next(numbers))
        return names[name]

    for node in graph.node:
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if short(tensor.name) in used]
    for tensor in kept:
        tensor.name = short(tensor.name)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _check_against_eager(model: nn.Module, raw: bytes, inputs: torch.Tensor) -> None:
    """Raise ``GateFailed`` unless file and module give the same logits on raw records."""
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(inputs).numpy()
    found = infer(open_session(raw), inputs.numpy())
    worst = float(np.abs(found - expected).max())
    if found.shape != expected.shape or not worst <= TOLERANCE * max(1.0, np.abs(expected).max()):
        raise GateFailed(
            f"the exported model differs from the trained one by {worst:.2g}",
            why="both must answer alike on raw records",
            cure="report this model's layers as a bug of the export",
        )


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hush the exporter: its progress lines are no result, its warnings concern its own code."""
    onnx_log = logging.getLogger("torch.onnx")
    script_log = logging.getLogger("onnxscript")
    levels = onnx_log.level, script_log.level
    onnx_log.setLevel(logging.ERROR)
    script_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnx_log.setLevel(levels[0])
        script_log.setLevel(levels[1])
