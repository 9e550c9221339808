"""What a model reads and answers under a plan: kind, shape and outputs; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from .cards import InputKind
from .catalog import card

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef

GLYPH_LARGEST = 16.0
LARGEST_PIXEL = 255.0


def outputs(ref: ModelRef) -> int:
    """Return how many numbers the model answers per record (per pixel: segmentation).

    One per class; regression 1; survival the log risk and one log hazard per interval.
    """
    if ref.task == "regression":
        return 1
    if ref.task == "survival":
        return 1 + len(ref.target)
    return max(1, len(ref.classes))


def input_kind(ref: ModelRef) -> InputKind:
    """Return whether the model reads tables, images or texts; transformers' read either."""
    if ref.name.startswith("hf:"):
        return "image" if ref.image else "text"
    return card(ref.name).input_kind


def input_shape(ref: ModelRef) -> tuple[int, ...]:
    """Return the shape of one raw record, as readers give it and the model reads it."""
    found = card(ref.name)
    if found.input_shape:
        return found.input_shape
    match input_kind(ref):
        case "table":
            return (len(ref.bounds) + len(ref.categories),)
        case "image":
            return ref.image
        case "text":
            return (found.whole(ref, "tokens"),)
        case _:
            return ref.image or (len(ref.bounds) + len(ref.categories),)


def encode(ref: ModelRef, x: NDArray[Any]) -> NDArray[Any]:
    """Return records as the model reads them: texts become (n, tokens) int32, others stay.

    Raises ``InvalidInput`` when shape, type or range do not fit; it names counts, no values.
    """
    if x.dtype.kind in "OUS" and x.ndim == 1 and input_kind(ref) == "text":
        from .text import encode as tokens

        return tokens(ref, [str(text) for text in x])
    expected = input_shape(ref)
    if x.dtype.kind not in "fiub" or x.shape[1:] != expected:
        raise InvalidInput(
            f"Records of shape {x.shape[1:]} and type {x.dtype} do not fit '{ref.name}'",
            why=f"the model reads numbers of shape {expected}",
            cure="look at the reader in site.toml and at bounds, categories, image in the plan",
        )
    _require_range(ref, x)
    return x


def _require_range(ref: ModelRef, x: NDArray[Any]) -> None:
    """Raise ``InvalidInput`` for infinite numbers, odd pixels and tokens; NaN only in tables."""
    kind = input_kind(ref)
    low, high = -np.inf, np.inf
    if kind == "image":
        low, high = 0.0, GLYPH_LARGEST if card(ref.name).input_shape else LARGEST_PIXEL
    elif kind == "text":
        low, high = -1.0, float(2**24)
    flat = x.reshape(len(x), -1)
    wrong = ~((flat >= low) & (flat <= high) & ~np.isinf(flat))
    if kind == "table":
        wrong &= ~np.isnan(flat)
    if count := int(wrong.any(axis=1).sum()):
        raise InvalidInput(
            f"{count} of {len(x)} records hold numbers outside what '{ref.name}' reads",
            why="finite numbers" if np.isinf(high) else f"numbers from {low:g} to {high:g}",
            cure="look at these records at the site, and at the reader's scaling",
        )
