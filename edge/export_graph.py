"""A module as an ONNX graph with a free batch axis, or the name of the layer that prevents it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Generator
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

from ..core.errors import InvalidInput
from .attention import lighten_attention
from .compact import INPUT, OUTPUT

OPSET = 20
_NODE = re.compile(r"translating node %(\w+)")
_OPERATOR = re.compile(r"(?:op='|target=torch\.ops\.)([\w.]+)")
_CURE = 'replace that layer, or distil into a student: [edge] student = "auto"'


def translated(model: nn.Module, example: Tensor) -> ModelProto:
    """Return the graph of a module in eval mode; ``example`` (2, ...) is a batch of its input.

    Raises ``InvalidInput`` that names the layer without a form in ONNX.
    """
    with _quiet():
        program = _captured(model, example)
        _average_plainly(program)
        try:
            made = torch.onnx.export(
                program,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise _untranslatable(program, error) from error
    if made is None:
        raise InvalidInput("this model has no ONNX form", why="the exporter made none", cure=_CURE)
    graph = made.model_proto
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"  # it would bear a number of torch's
    lighten_attention(graph.graph)
    return graph


def _captured(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return the module as a program whose number of records is free.

    It is followed by calling it; where that fixes the number of records (``len(x)`` does), by
    reading its bytecode, which is slower and knows fewer models.
    """
    shapes = ({0: torch.export.Dim("n")},)
    path: list[str] = []
    hooks = _following(model, path)
    try:
        return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        layer, first = ".".join(path), error
    finally:
        for hook in hooks:
            hook.remove()
    try:
        return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=True)
    except Exception as error:
        raise _uncapturable(model, layer, first) from error


def _average_plainly(program: torch.export.ExportedProgram) -> None:
    """Say "mean" where whole images are averaged, in place.

    Of channels-last values torch 2.15 would make a gather by computed places, on which the
    quantizer's shape inference stops.
    """
    pooling: Any = torch.ops.aten.adaptive_avg_pool2d.default
    for node in program.graph.nodes:
        if node.target is pooling and list(node.args[1]) == [1, 1]:
            node.target = torch.ops.aten.mean.dim
            node.args = (node.args[0], [2, 3], True)
    program.graph_module.recompile()


def _following(model: nn.Module, path: list[str]) -> list[Any]:
    """Keep in ``path`` the name of the layer that runs: after an error, of the one that raised."""

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:
            path[:] = [name]

        return hook

    return [
        module.register_forward_pre_hook(enter(name))
        for name, module in model.named_modules()
        if name
    ]


def _uncapturable(model: nn.Module, layer: str, error: Exception) -> InvalidInput:
    kind = type(dict(model.named_modules()).get(layer, model)).__name__
    return InvalidInput(
        f"the layer '{layer or 'model'}' ({kind}) cannot be exported",
        why=f"its steps depend on the values of the records ({type(error).__name__})",
        cure=_CURE,
    )


def _untranslatable(program: torch.export.ExportedProgram, error: Exception) -> InvalidInput:
    """Return the error that names layer and operator of a node that ONNX has nothing for."""
    text = "\n".join(str(each) for each in _chain(error))
    node, operator = _NODE.search(text), _OPERATOR.search(text)
    layer = kind = ""
    if node is not None:
        with contextlib.suppress(Exception):  # the program may not decompose a second time
            layer, kind = _owner(program, node[1])
            if not kind:
                layer, kind = _owner(program.run_decompositions(), node[1])
    return InvalidInput(
        f"the layer '{layer or 'model'}'{f' ({kind})' if kind else ''} cannot be exported",
        why=f"ONNX has nothing for its operator {operator[1] if operator else '(unnamed)'}",
        cure=_CURE,
    )


def _owner(program: torch.export.ExportedProgram, node: str) -> tuple[str, str]:
    """Return name and class of the module that a node of the program is from."""
    for each in program.graph.nodes:
        if each.name == node and (stack := each.meta.get("nn_module_stack")):
            name, kind = list(stack.values())[-1]
            return str(name), str(kind).rpartition(".")[2]
    return "", ""


def _chain(error: BaseException | None) -> Generator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hush the exporter: its progress lines are no result, its warnings concern its own code."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
