"""Which open models there are, what they need, and how one is built with a new head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import InvalidInput
from ..core.forms import trainable_fault
from .cards import ModelCard, Option
from .cards_own import GLYPH_CNN, HASHED, LINEAR
from .catalog import card, describe, names
from .outputs import encode, input_kind, input_shape, outputs

if TYPE_CHECKING:
    from torch import nn

    from ..core.plan_model import ModelRef
    from ..privacy.cure import Change
    from .building import Sizes

__all__ = [
    "GLYPH_CNN",
    "LINEAR",
    "ModelCard",
    "Option",
    "build",
    "card",
    "check_trainable",
    "cured_changes",
    "describe",
    "encode",
    "input_kind",
    "input_shape",
    "known_sizes",
    "names",
    "open_model",
    "outputs",
    "sizes",
    "total_parameters",
    "trainable_size",
]


def trainable_size(ref: ModelRef) -> int:
    """Return how many coordinates train, exactly.

    Of the bundled models without torch; of others the net is built without its weights. Raises
    ``InvalidInput`` for what ``check_trainable`` refuses and for what does not fit the model,
    ``NotAvailable`` when a package is missing.
    """
    check_trainable(ref.trainable)
    known = known_sizes(ref)
    return known[0] if known else sizes(ref).trainable


def total_parameters(ref: ModelRef) -> int:
    """Return the parameters of the model with its new head, trained or not."""
    known = known_sizes(ref)
    return known[1] if known else sizes(ref).total


def sizes(ref: ModelRef) -> Sizes:
    """Return both sizes and what ``privacy.cure`` changes; imports torch, needs no weights."""
    from .building import measure

    return measure(ref)


def cured_changes(ref: ModelRef) -> tuple[Change, ...]:
    """Return what is changed in the open model so that it can train record by record."""
    return () if known_sizes(ref) else sizes(ref).changes


def check_trainable(trainable: str) -> None:
    """Raise ``InvalidInput`` unless it names a part of a model that can train."""
    if trainable_fault(trainable):
        raise InvalidInput(
            f"trainable = '{trainable}' is unknown",
            why="it names the part of the model whose parameters leave a site",
            cure="use head, bias, norm, lora:R, last:N or all",
        )


def build(ref: ModelRef) -> nn.Module:
    """Return the plan's model in eval mode: pinned open weights, a zero head, adapters.

    (batch, *input_shape) raw values to (batch, outputs). It is cured: it can be trained record
    by record. Raises ``Refused`` when the weights differ from the pinned digest,
    ``MissingInput`` when they are not here, ``InvalidInput`` for a plan that does not fit,
    ``NotAvailable`` without a package that it needs.
    """
    from .building import build_model

    return build_model(ref).model


def open_model(ref: ModelRef) -> nn.Module | None:
    """Return the untouched open model in eval mode, with its own head; raises as ``build``.

    None when it has no head of its own for the plan's classes.
    """
    from .building import untouched

    return untouched(ref)


def known_sizes(ref: ModelRef) -> tuple[int, int] | None:
    """Return (coordinates that train, all parameters) where a plan alone tells, else None."""
    if ref.trainable not in ("head", "bias", "all"):
        return None
    found, answers = card(ref.name), outputs(ref)
    if ref.name in (LINEAR, HASHED):
        numbers = len(ref.bounds) * (2 if ref.missing == "flag" else 1)
        width = numbers + sum(map(len, ref.categories.values()))
        size = ((found.whole(ref, "buckets") if ref.name == HASHED else width) + 1) * answers
        return size, size
    if ref.name == GLYPH_CNN:
        own_head = (found.head_inputs + 1) * len(found.classes)
        head = (found.head_inputs + 1) * answers
        total = found.parameters - own_head + head
        parts = {"head": head, "bias": head + found.body_biases, "all": total}
        return parts[ref.trainable], total
    return None
