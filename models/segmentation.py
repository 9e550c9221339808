"""Models that answer per pixel: a small U-Net, and torchvision's segmenters."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .cards_own import UNET
from .heads import Headed
from .images import IMAGENET_MEAN, IMAGENET_SD, ImagePreprocess, resized
from .outputs import outputs
from .states import Source, State, load_strictly

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard


class Level(nn.Sequential):
    """Two convolutions with GroupNorm: (batch, inputs, h, w) to (batch, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(4, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.GroupNorm(4, outputs),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """Ronneberger et al., MICCAI 2015, smaller: pixels to (batch, ``width``, h, w) features.

    GroupNorm instead of BatchNorm, and resizing instead of transposed convolution: every layer
    can be followed record by record. ``depth`` times height and width are halved.
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        pairs = list(pairwise(widths))
        self.first = Level(channels, width)
        self.down = nn.ModuleList(Level(low, high) for low, high in pairs)
        self.up = nn.ModuleList(Level(high + low, low) for low, high in reversed(pairs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, h, w) to (batch, width, h, w)."""
        seen = [self.first(x)]
        for level in self.down:
            seen.append(level(functional.max_pool2d(seen[-1], 2)))
        x = seen.pop()
        for level in self.up:
            beside = seen.pop()
            x = functional.interpolate(x, size=beside.shape[2:], mode="nearest")
            x = level(torch.cat([x, beside], dim=1))
        return x


class PixelHead(nn.Module):
    """A linear answer per pixel, resized to the raw image."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.pixel = nn.Conv2d(inputs, outputs, 1)
        self.size = size
        nn.init.zeros_(self.pixel.weight)
        if self.pixel.bias is not None:
            nn.init.zeros_(self.pixel.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, *size)."""
        x = self.pixel(x)
        if x.shape[2:] == self.size:
            return x
        return functional.interpolate(x, size=self.size, mode="bilinear", align_corners=False)


class Segmenter(nn.Module):
    """torchvision's backbone and all of its classifier but the last, linear layer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        parts = cast("Any", net)
        self.backbone = parts.backbone
        self.low = type(parts.classifier).__name__ == "LRASPPHead"
        last = parts.classifier
        if self.low:
            self.width = last.low_classifier.in_channels + last.high_classifier.in_channels
            self.cbr, self.scale = last.cbr, last.scale
        else:
            self.width = last[-1].in_channels
            self.neck = nn.Sequential(*list(last.children())[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 3, h, w) to (batch, width, h', w')."""
        seen = self.backbone(x)
        if not self.low:
            return self.neck(seen["out"])
        # LR-ASPP adds two linear layers: one layer reads both inputs instead
        high = self.cbr(seen["high"]) * self.scale(seen["high"])
        high = functional.interpolate(
            high, size=seen["low"].shape[2:], mode="bilinear", align_corners=False
        )
        return torch.cat([seen["low"], high], dim=1)


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the segmenter with a zero head; ``source`` None: with random weights."""
    height, width, channels = ref.image
    if ref.name == UNET:
        wide = card.whole(ref, "width")
        net = UNet(channels, wide, card.whole(ref, "depth"))
        plain = ImagePreprocess(None, (0.5,) * channels, (0.5,) * channels)
        return Headed(plain, net, PixelHead(wide, outputs(ref), (height, width)))
    body = Segmenter(_net(ref, source() if source else None))
    head = PixelHead(body.width, outputs(ref), (height, width))
    return Headed(_preprocess(card, ref), body, head)


def open_model(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module | None:
    """Return None: none of these models comes with a head for a plan's classes."""
    del card, ref, source


def _preprocess(card: ModelCard, ref: ModelRef) -> ImagePreprocess:
    return ImagePreprocess(resized(card, ref), IMAGENET_MEAN, IMAGENET_SD)


def _net(ref: ModelRef, state: State | None) -> nn.Module:
    from torchvision.models import get_model

    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    if state is None:
        return get_model(ref.name.partition(":")[2], **options)
    kept = {name: value for name, value in state.items() if not name.startswith("aux_classifier")}
    last = next(value for name, value in reversed(kept.items()) if name.endswith("weight"))
    net = get_model(ref.name.partition(":")[2], num_classes=len(last), **options)
    load_strictly(net, kept, ref.name)
    return net
