"""Which open models there are, what they need, and how one is built with a new head."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING

from ..core.errors import InvalidInput, NotBuiltYet, Refused
from ..core.plan import ModelRef
from .fetch import asset_bytes, asset_card

if TYPE_CHECKING:
    from torch import nn

GLYPH_CNN = "collegium:glyph-cnn"
LINEAR = "tabular:linear"
LATER_FAMILIES = ("torchvision", "timm", "hf")
LATER_TRAINABLE = ("norm", "last:", "lora:")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is publicly known of an open model, without loading it.

    ``input_shape`` is one raw record's shape, without the batch axis; () where the plan's
    bounds decide it. ``classes`` are those of the untouched model. ``parameters`` counts the
    untouched model, ``body_biases`` the bias coordinates before the head, ``head_inputs`` what
    the head reads (0: one per bound). ``weights`` is the digest of the safetensors asset.
    """

    name: str
    license: str
    task: str
    input_shape: tuple[int, ...]
    input_dtype: str
    classes: tuple[str, ...]
    parameters: int
    body_biases: int
    head_inputs: int
    weights: str | None
    trained_on: str
    summary: str


@cache
def card(name: str) -> ModelCard:
    """Return the card of an open model.

    Raises ``InvalidInput`` for an unknown name, with the nearest known ones, and
    ``NotBuiltYet`` for the families of later versions.
    """
    if name == GLYPH_CNN:
        values = asset_card("glyph-cnn.json")
        known = {field.name: values[field.name] for field in fields(ModelCard)}
        for key in ("input_shape", "classes"):
            known[key] = tuple(known[key])
        return ModelCard(**known)
    if name == LINEAR:
        return _LINEAR_CARD
    family = name.partition(":")[0]
    if family in LATER_FAMILIES:
        raise NotBuiltYet(
            f"The model '{name}' is not built yet",
            why=f"the family '{family}' comes in a later version",
            cure=f"use one of {', '.join(names())}",
        )
    near = difflib.get_close_matches(name, names(), n=2, cutoff=0.4) or list(names())
    raise InvalidInput(
        f"There is no open model '{name}'",
        why="a plan names a model that every site can fetch by digest",
        cure=f"did you mean {' or '.join(near)}?",
    )


def names() -> tuple[str, ...]:
    """Return the names of all open models of this version."""
    return (GLYPH_CNN, LINEAR)


def trainable_size(ref: ModelRef) -> int:
    """Return how many coordinates train; imports no torch.

    Raises ``NotBuiltYet`` or ``InvalidInput`` for what ``check_trainable`` refuses.
    """
    check_trainable(ref.trainable)
    if ref.trainable == "all":
        return total_parameters(ref)
    biases = card(ref.name).body_biases if ref.trainable == "bias" else 0
    return _head_size(ref) + biases


def total_parameters(ref: ModelRef) -> int:
    """Return the parameters of the model with its new head, trained or not."""
    open_card = card(ref.name)
    own_head = (open_card.head_inputs + 1) * len(open_card.classes)
    return open_card.parameters - own_head + _head_size(ref)


def check_trainable(trainable: str) -> None:
    """Raise ``NotBuiltYet`` or ``InvalidInput`` unless this version can train that part."""
    if trainable in ("head", "bias", "all"):
        return
    if trainable.startswith(LATER_TRAINABLE):
        raise NotBuiltYet(
            f"trainable = '{trainable}' is not built yet",
            why="this version trains the head, the biases with the head, or all",
            cure="use 'head'",
        )
    raise InvalidInput(
        f"trainable = '{trainable}' is unknown",
        why="it names the part of the model whose parameters leave a site",
        cure="use head, bias or all",
    )


def build(ref: ModelRef) -> nn.Module:
    """Return the pinned open model in eval mode, its head replaced by a zero one.

    (batch, *input_shape) float32 raw values to (batch, len(ref.classes)) logits. Raises
    ``Refused`` when the weights differ from the pinned digest.
    """
    from torch import nn

    model = open_model(ref)
    inputs = _head_inputs(ref)
    head = nn.Linear(inputs, len(ref.classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model.head = head
    return model.eval()


def open_model(ref: ModelRef) -> nn.Module:
    """Return the untouched open model in eval mode, with its own head; raises as ``build``."""
    pinned = card(ref.name).weights
    if ref.weights is not None and ref.weights != pinned:
        raise Refused(
            f"The plan pins {ref.weights} for '{ref.name}', this version ships {pinned}",
            why="every site must start from the same bytes",
            cure="install the version that the consortium agreed on, or agree on a new plan",
        )
    if pinned is None:
        return _linear(ref)
    from safetensors.torch import load

    from .vision import GlyphCNN

    model = GlyphCNN()
    model.load_state_dict(load(asset_bytes("glyph-cnn.safetensors", pinned)))
    return model.eval()


def _linear(ref: ModelRef) -> nn.Module:
    from .tabular import LinearModel

    if not ref.bounds and not ref.categories:
        raise InvalidInput(
            f"'{LINEAR}' needs public bounds",
            why="features are scaled by bounds that stand in the plan, never fitted on records",
            cure="give [model.bounds] one lowest and highest value per feature",
        )
    return LinearModel(ref, len(ref.classes)).eval()


def _head_size(ref: ModelRef) -> int:
    return (_head_inputs(ref) + 1) * len(ref.classes)


def _head_inputs(ref: ModelRef) -> int:
    """Return what the head reads: of a table, the width of ``TablePreprocess``."""
    numbers = len(ref.bounds) * (2 if ref.missing == "flag" else 1)
    return card(ref.name).head_inputs or numbers + sum(map(len, ref.categories.values()))


_LINEAR_CARD = ModelCard(
    name=LINEAR,
    license="Apache-2.0",
    task="classification",
    input_shape=(),
    input_dtype="float32",
    classes=(),
    parameters=0,
    body_biases=0,
    head_inputs=0,
    weights=None,
    trained_on="nothing: it starts at zero",
    summary="a linear model over features scaled to [-1, 1] by the plan's public bounds",
)
