"""An ONNX file that holds the model and nothing else: no names, paths or notes of its making."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

INPUT, OUTPUT = "x", "logits"


def compact(model: ModelProto) -> ModelProto:
    """Strip metadata, doc strings and value infos, and give every value a short name; in place.

    The exporter leaves stack traces with file paths in node metadata (torch 2.15), and
    quantization keeps them; they would name the build machine and make the digest depend on it.
    """
    graph = model.graph
    for holder in (model, *_holders(graph)):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for node in _nodes(graph):
        node.name = ""
    model.producer_name, model.producer_version, model.domain = "collegium", "", ""
    graph.name = "g"
    del model.functions[:]
    del graph.value_info[:]
    if not has_bodies(graph):
        # a branch or loop body refers to outer values by name: such a graph keeps its names
        _merge_equal_constants(graph)
        _rename(graph)
    return model


def deterministic_bytes(model: ModelProto) -> bytes:
    """Return the model as bytes that are the same each time and on every machine."""
    return model.SerializeToString(deterministic=True)


def has_bodies(graph: GraphProto) -> bool:
    """Return whether a node of the graph holds a graph of its own (a branch, a loop)."""
    return any(part.HasField("g") for node in graph.node for part in node.attribute)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for part in node.attribute:
            if part.HasField("g"):
                yield from _nodes(part.g)


def _holders(graph: GraphProto) -> Iterator[Any]:
    """Yield everything of a graph that can carry metadata and a doc string."""
    yield graph
    yield from (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    for node in graph.node:
        yield node
        for part in node.attribute:
            if part.HasField("g"):
                yield from _holders(part.g)


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
