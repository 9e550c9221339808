"""timm's image models with their pre-trained weights and a head of the right size."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.errors import InvalidInput, NotAvailable
from .heads import Headed, scaled, zero_head
from .images import ImagePreprocess, resized
from .outputs import outputs
from .states import Source, State
from .vision_open import OwnHead

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the net with a zero head; ``source`` None: with random weights.

    Raises ``NotAvailable`` without timm and ``InvalidInput`` for a name that it does not know.
    """
    net = _net(card, ref, source() if source else None, classes=0)
    width = int(getattr(net, "head_hidden_size", None) or net.num_features)
    return Headed(
        _preprocess(card, ref, net),
        scaled(net, card.option(ref, "feature_norm")),
        zero_head(width, outputs(ref)),
    )


def open_model(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module | None:
    """Return the untouched net when its own head has the plan's number of classes."""
    if source is None:
        return None
    _require()
    import timm

    rest = ref.name.partition(":")[2]
    config = timm.get_pretrained_cfg(rest) if timm.is_model(rest) else None
    if config is None or config.num_classes != len(ref.classes):
        return None
    net = _net(card, ref, source(), classes=config.num_classes)
    return OwnHead(_preprocess(card, ref, net), net)


def _net(card: ModelCard, ref: ModelRef, state: State | None, *, classes: int) -> Any:
    _require()
    import timm

    rest = ref.name.partition(":")[2]
    if not timm.is_model(rest):
        near = timm.list_models(f"*{rest.partition('.')[0][:8]}*")[:4]
        raise InvalidInput(
            f"timm {timm.__version__} has no model '{rest}'",
            why="the plan names a model of that package",
            cure=f"did you mean {' or '.join(near)}?" if near else "look at timm.list_models()",
        )
    options: dict[str, Any] = {"num_classes": classes}
    config = timm.get_pretrained_cfg(rest)
    if card.whole(ref, "side") and config is not None and config.fixed_input_size:
        options["img_size"] = card.whole(ref, "side")
    if state is None:
        return _plain_norms(timm.create_model(rest, pretrained=False, **options))
    try:
        # timm renames old layers and resizes tables of positions; the tensors are ours, checked
        overlay = {"state_dict": state}
        return _plain_norms(
            timm.create_model(rest, pretrained=True, pretrained_cfg_overlay=overlay, **options)
        )
    except RuntimeError as error:
        raise InvalidInput(
            f"The pinned weights do not fit '{ref.name}'",
            why=str(error).partition("\n")[0],
            cure="pin weights of this very architecture",
        ) from error


def _plain_norms(net: nn.Module) -> nn.Module:
    """Put torch's own LayerNorm where timm's computes the same: clipping can follow that one."""
    from timm.layers.norm import LayerNorm

    for name, module in list(net.named_modules()):
        if type(module) is LayerNorm:
            plain = nn.LayerNorm(
                list(module.normalized_shape),
                eps=module.eps,
                elementwise_affine=module.elementwise_affine,
                bias="bias" in module.state_dict(),
            )
            plain.load_state_dict(module.state_dict(), assign=True)
            net.set_submodule(name, plain)
    return net


def _preprocess(card: ModelCard, ref: ModelRef, net: Any) -> ImagePreprocess:
    config = net.pretrained_cfg
    fixed = 0
    if config.get("fixed_input_size"):
        fixed = card.whole(ref, "side") or int(config["input_size"][-1])
    return ImagePreprocess(resized(card, ref, fixed=fixed), config["mean"], config["std"])


def _require() -> None:
    if find_spec("timm") is None:
        raise NotAvailable(
            "timm's models are not available here",
            why="the package timm is not installed",
            cure="pip install 'collegium[timm]'",
        )
