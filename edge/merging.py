"""What only training needs leaves the net: adapters are merged, frozen norms made foldable."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..core.errors import InvalidInput
from ..models.images import ImagePreprocess
from ..models.lora import MARK
from ..privacy.frozen import FrozenNorm


def deployable(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode that computes the same with fewer layers.

    Low-rank adapters become part of the weights beside which they stand, BatchNorm part of the
    convolution before it, dropout nothing. Frozen BatchNorms get a form that the exporter folds.
    Raises ``InvalidInput`` for an adapter that cannot be merged.
    """
    made = copy.deepcopy(model).eval()
    if any(MARK in name for name, _ in made.named_parameters()):
        made = merge_adapters(made)
    _swap(made, _simpler)
    return fold_batchnorm(made)


def merge_adapters(model: nn.Module) -> nn.Module:
    """Return ``model``, changed, each of peft's adapted layers a plain layer with both weights.

    W + 2 B A for the adapters of ``models.lora`` (Hu et al., ICLR 2022, section 4.1). Raises
    ``InvalidInput`` when an adapter cannot be merged.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    def merged(name: str, module: nn.Module) -> nn.Module | None:
        if not isinstance(module, BaseTunerLayer):
            return None
        layer = cast("Any", module)
        try:
            layer.merge(safe_merge=True)
        except (NotImplementedError, ValueError, AttributeError) as error:
            raise InvalidInput(
                f"the adapter of the layer '{name}' cannot be merged",
                why=f"{type(error).__name__} in {type(module).__name__}: a device gets one "
                "weight per layer",
                cure='train with "lora:R" adapters of linear layers and convolutions',
            ) from error
        return layer.get_base_layer()

    return _swap(model, merged)


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Return a copy in which each BatchNorm after a convolution of its Sequential is part of it.

    Only where both stand side by side: the exporter folds all others, wherever they stand.
    """
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


class RowNormalise(nn.Module):
    """An ``ImagePreprocess`` that does not resize: two steps over whole rows instead of three.

    With colours last as they come and the constants of a pixel repeated along a row, nothing is
    broadcast over three values at a time: a runtime takes a fifth of the time (2 ms of
    resnet18's 11).
    """

    def __init__(self, origin: ImagePreprocess) -> None:
        super().__init__()
        self.register_buffer("shift", 255 * origin.get_buffer("mean").reshape(-1))
        self.register_buffer("scale", 255 * origin.get_buffer("sd").reshape(-1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, height, width, 1 or 3) of 0..255 to normalised (batch, 3, height, width)."""
        shift, scale = self.get_buffer("shift"), self.get_buffer("scale")
        _, height, width, colours = x.shape
        if colours != len(shift):
            x = x.expand(-1, -1, -1, len(shift))
        rows = x.reshape(-1, height, width * len(shift))
        rows = (rows - shift.repeat(width)) / scale.repeat(width)
        return rows.reshape(-1, height, width, len(shift)).permute(0, 3, 1, 2)


def _simpler(name: str, module: nn.Module) -> nn.Module | None:
    """Return an equal layer that the exporter knows to fold, None where it may stay."""
    del name
    if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
        return nn.Identity()
    if isinstance(module, ImagePreprocess) and module.size is None:
        return RowNormalise(module)
    if type(module).__name__ == "FrozenBatchNorm2d":  # torchvision's; others copy it with its name
        held = dict(module.named_buffers())
        return FrozenNorm(held, eps=float(cast("Any", module).eps))
    return None


def _swap(model: nn.Module, other: Callable[[str, nn.Module], nn.Module | None]) -> nn.Module:
    """Put ``other`` (name and module to a module, or None) in place, outermost first."""
    if (whole := other("", model)) is not None:
        return whole
    for name, module in list(model.named_modules()):
        if name and (made := other(name, module)) is not None:
            model.set_submodule(name, made)
    return model
