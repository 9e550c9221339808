"""Fewer bits per weight where the graph gains by it: which recipes suit it, and what each makes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..core.errors import InvalidInput
from ..core.fields import nearest
from ..core.plan_edge_checks import RECIPES
from ..data.public import PublicSet
from ..privacy.origin import require_releasable
from .quantize_graph import GraphKind, Make, graph_kind, weight_count
from .quantize_make import dynamic, static
from .quantize_target import processor

__all__ = [
    "AUTO",
    "CONV",
    "DYNAMIC",
    "FP32",
    "LARGE",
    "MATMUL",
    "PERCENTILE",
    "S8S8",
    "STATIC",
    "GraphKind",
    "graph_kind",
    "is_calibrated",
    "quantize",
    "recipes",
]

AUTO, FP32 = "auto", "fp32"
STATIC, PERCENTILE = "int8-static", "int8-static-percentile"
CONV, S8S8 = "int8-static-conv", "int8-static-s8s8"
DYNAMIC, MATMUL = "int8-dynamic", "int8-dynamic-matmul"
LARGE = 1 << 20
"""Weights of a dense net from which int8 may pay: a smaller one is slower for it (measured)."""

_MAKERS: Mapping[str, Make] = MappingProxyType(
    {
        STATIC: static(),
        PERCENTILE: static(percentile=99.999),
        CONV: static(operators=("Conv", "Gemm", "MatMul")),
        S8S8: static(signed=True),
        DYNAMIC: dynamic("MatMul", "Gemm", "Gather"),
        MATMUL: dynamic("MatMul", "Gemm"),
    }
)


def recipes(model: bytes, wanted: str, target: str = "here") -> tuple[str, ...]:
    """Return the candidates of a recipe for these ONNX bytes, fp32 first.

    ``auto``: for convolutions the static ones, whose activations are signed where ``target`` is
    an ARM processor; for attention the dynamic one; for dense nets fp32 alone, unless they are
    ``LARGE``. Any other name: fp32 and that one. Raises ``InvalidInput`` for a name that there
    is not, and for a recipe that would spoil such a graph.
    """
    kind = graph_kind(model)
    if wanted == AUTO:
        return (FP32, *_auto(model, kind, target))
    if wanted == FP32:
        return (FP32,)
    if wanted not in _MAKERS:
        raise _unknown(wanted)
    _require_suited(kind, wanted)
    return (FP32, wanted)


def quantize(model: bytes, recipe: str, calibration: PublicSet, target: str = "here") -> bytes:
    """Return the candidate's ONNX bytes; the same ones each time, ``fp32`` as they are.

    Weights are int8, one scale per channel. The static recipes fix the range of every activation
    by what ``calibration`` shows, which is therefore an input that leaves with the model;
    ``target`` ("here", "x86" or "arm") decides signs and bits (``quantize_target``). Logits stay
    floats. Raises ``Refused`` when the calibration records are private, and as ``recipes``.
    """
    if recipe == FP32:
        return model
    if recipe not in _MAKERS:
        raise _unknown(recipe)
    require_releasable(calibration.origin, "calibration")
    _require_suited(graph_kind(model), recipe)
    return _MAKERS[recipe](model, calibration.x, processor(target))


def is_calibrated(recipe: str) -> bool:
    """Return whether this recipe reads the calibration records."""
    return recipe.startswith(STATIC)


def _auto(model: bytes, kind: GraphKind, target: str) -> tuple[str, ...]:
    if kind == "convolutional":
        return (S8S8 if processor(target).signed else STATIC, PERCENTILE, CONV)
    # MATMUL leaves the table of words in fp32: 2.5 times the bytes, and no faster (MiniLM-L6)
    return (DYNAMIC,) if kind == "transformer" or weight_count(model) >= LARGE else ()


def _require_suited(kind: GraphKind, recipe: str) -> None:
    """Raise ``InvalidInput`` for what was measured to spoil such a graph."""
    if kind == "convolutional" and recipe in (DYNAMIC, MATMUL):
        raise InvalidInput(
            f"'{recipe}', dynamic quantization, of a convolutional graph",
            why="the runtime has no fast kernel for it (microsoft/onnxruntime issue 12854): it "
            "would be several times slower than fp32",
            cure=f"use {AUTO}, {FP32} or {STATIC}",
        )
    if kind == "transformer" and recipe not in (DYNAMIC, MATMUL):
        raise InvalidInput(
            f"'{recipe}', static quantization, of a graph with attention",
            why="one fixed range per activation spoils its answers: a static ViT agreed with its "
            "fp32 in none of them",
            cure=f"use {AUTO}, {FP32} or {DYNAMIC}",
        )


def _unknown(recipe: str) -> InvalidInput:
    guess = nearest(recipe, RECIPES)
    return InvalidInput(
        f"the recipe '{recipe[:60]}' is not known",
        why=f"there are {', '.join(RECIPES)}",
        cure=f'did you mean "{guess}"?' if guess else f'write "{AUTO}"',
    )
