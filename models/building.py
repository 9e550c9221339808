"""From a plan's model to a net that can be trained record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.errors import InvalidInput, Refused
from ..core.plugins import is_plugin
from ..privacy.cure import Change, cure
from . import cards_own as own
from .adapters import trainable_names
from .cards import ModelCard, require_options
from .catalog import card, plugin
from .fetch import asset_bytes
from .lora import inject, rank_of
from .outputs import input_kind
from .states import Source, State, state_of

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef

BUILDERS = (
    (own.GLYPH_CNN, "vision", "build"),
    (own.LINEAR, "tabular", "build_linear"),
    (own.MLP, "tabular", "build_mlp"),
    (own.FT_TRANSFORMER, "ft_transformer", "build"),
    (own.HASHED, "text_hashed", "build"),
    ("cifar:", "cifar", "build"),
    ("segmentation:", "segmentation", "build"),
    ("torchvision:", "vision_open", "build"),
    ("timm:", "timm_models", "build"),
    ("hf:", "hf", "build"),
)
"""How a name begins, the file that builds it, and the function there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model ready for training, and what ``privacy.cure`` changed to make it so."""

    model: nn.Module
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Coordinates that train, parameters of the whole model with its new head, and changes."""

    trainable: int
    total: int
    changes: tuple[Change, ...]

    @property
    def cured(self) -> str:
        """Return the changes in one line, how many of each kind."""
        kinds = Counter(change.kind for change in self.changes)
        return ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))


def build_model(ref: ModelRef, *, weights: bool = True) -> Built:
    """Return the plan's model in eval mode: open weights, zero head, cured, with its adapters.

    (batch, *input_shape) raw values to (batch, outputs). What starts at random is the same on
    every machine that runs the same torch. ``weights`` False: shapes alone, numbers without
    meaning. Raises ``InvalidInput`` for what does not fit, ``MissingInput`` and ``Refused`` for
    weights, ``NotAvailable`` for a package that is missing.
    """
    found = card(ref.name)
    require_fitting(found, ref)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(sha256(ref.name.encode()).digest()[:4], "little"))
        cured = cure(_uncured(found, ref, weights=weights).eval())
        rank = rank_of(ref.trainable)
        model = inject(cured.model, rank) if rank else cured.model
    return Built(model=model.eval(), changes=cured.changes)


def measure(ref: ModelRef) -> Sizes:
    """Return the exact sizes of a plan's model; needs the package that builds it, no weights."""
    built = build_model(ref, weights=False)
    parameters = dict(built.model.named_parameters())
    chosen = trainable_names(built.model, ref.trainable)
    return Sizes(
        trainable=sum(parameters[name].numel() for name in chosen),
        total=sum(value.numel() for value in parameters.values())
        + sum(value.numel() for value in _frozen_scales(built.model)),
        changes=built.changes,
    )


def untouched(ref: ModelRef) -> nn.Module | None:
    """Return the open model with its own head, None when it has none for the plan's classes."""
    found = card(ref.name)
    if ref.name == own.LINEAR:
        return build_model(ref).model  # it starts at zero: nothing of it is touched yet
    if is_plugin(ref.name) or ref.task not in ("classification", found.task):
        return None
    require_fitting(found, ref)
    maker = getattr(_module(ref), "open_model", None)
    if maker is None:
        return None
    model = maker(found, ref, _source(found, ref))
    return None if model is None else model.eval()


def require_fitting(found: ModelCard, ref: ModelRef) -> None:
    """Raise ``InvalidInput`` when options or inputs of the plan do not fit the model."""
    require_options(found, ref)
    kind = input_kind(ref)
    if kind == "image" and not ref.image and not found.input_shape:
        raise InvalidInput(
            f"'{ref.name}' reads images, but the plan does not say of which size",
            why="every site's images have one shape",
            cure="write image = [height, width, channels] in [model]",
        )
    if kind == "table" and not ref.bounds and not ref.categories:
        raise InvalidInput(
            f"'{ref.name}' needs public bounds",
            why="features are scaled by bounds that stand in the plan, never fitted on records",
            cure="give [model.bounds] one lowest and highest value per feature",
        )


def _uncured(found: ModelCard, ref: ModelRef, *, weights: bool) -> nn.Module:
    if is_plugin(ref.name):
        return plugin(ref.name).build(ref)
    maker = _maker(ref)
    if weights:
        return maker(found, ref, _source(found, ref))
    try:
        with torch.device("meta"):
            return maker(found, ref, None).to_empty(device="cpu")
    except (NotImplementedError, RuntimeError):
        return maker(found, ref, None)  # some constructors look at their weights


def _maker(ref: ModelRef) -> Callable[[ModelCard, ModelRef, Source | None], nn.Module]:
    function = next(function for start, _, function in BUILDERS if ref.name.startswith(start))
    return getattr(_module(ref), function)


def _module(ref: ModelRef) -> Any:
    file = next(file for start, file, _ in BUILDERS if ref.name.startswith(start))
    return import_module(f".{file}", __package__)


def _source(found: ModelCard, ref: ModelRef) -> Source | None:
    """Return where the open weights come from, None for a model that starts at random."""
    if ref.name == own.GLYPH_CNN:
        return lambda: _bundled(found, ref)
    if found.is_random(ref):
        return None
    if ref.weights is None and found.weights is None and not found.pinned:
        return None
    if ref.name.startswith("hf:"):
        from .hf import folder_state

        return lambda: folder_state(found, ref)
    return lambda: state_of(found, ref)


def _bundled(found: ModelCard, ref: ModelRef) -> State:
    from safetensors.torch import load

    if ref.weights is not None and ref.weights != found.weights:
        raise Refused(
            f"The plan pins {ref.weights} for '{ref.name}', this version ships {found.weights}",
            why="every site must start from the same bytes",
            cure="install the version that the consortium agreed on, or agree on a new plan",
        )
    return load(asset_bytes("glyph-cnn.safetensors", found.weights or ""))


def _frozen_scales(model: nn.Module) -> list[torch.Tensor]:
    """Return scale and shift of the norms that cure has frozen: parameters of the open model."""
    from ..privacy.frozen import FrozenNorm

    norms = [module for module in model.modules() if isinstance(module, FrozenNorm)]
    held = [value for norm in norms for value in (norm.weight, norm.bias)]
    return [value for value in held if value is not None]
