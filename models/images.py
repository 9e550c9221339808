"""The first layer of image models: raw pixels to what a pre-trained net expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImagePreprocess(nn.Module):
    """(batch, height, width, channels) pixels 0..255 to normalised (batch, 3, side, side).

    Grey becomes three equal channels. ``size`` (height, width) resizes, bilinear, smoothed when
    it shrinks; None leaves the size. Mean and deviation are those of the pre-training.
    """

    def __init__(
        self, size: tuple[int, int] | None, mean: Sequence[float], sd: Sequence[float]
    ) -> None:
        super().__init__()
        self.size = size
        shape = (1, len(mean), 1, 1)
        self.register_buffer("mean", torch.tensor(list(mean)).reshape(shape), persistent=False)
        self.register_buffer("sd", torch.tensor(list(sd)).reshape(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, height, width, 1 or 3) to (batch, 3, *size)."""
        mean = self.get_buffer("mean")
        x = x.permute(0, 3, 1, 2) / 255
        if self.size is not None:
            smaller = x.shape[2] > self.size[0] or x.shape[3] > self.size[1]
            x = functional.interpolate(
                x, size=self.size, mode="bilinear", align_corners=False, antialias=smaller
            )
        if x.shape[1] != mean.shape[1]:
            x = x.expand(-1, mean.shape[1], -1, -1)
        return (x - mean) / self.get_buffer("sd")


def resized(card: ModelCard, ref: ModelRef, *, fixed: int = 0) -> tuple[int, int] | None:
    """Return the height and width that the net gets, None where images stay as they are.

    ``fixed``: the only side it takes. Else the option ``side``, else the card's least side for
    smaller images.
    """
    asked = card.whole(ref, "side") if any(o.name == "side" for o in card.options) else 0
    side = fixed or asked
    height, width = ref.image[:2]
    if not side and min(height, width) < card.min_side:
        side = card.min_side
    return None if not side or (height, width) == (side, side) else (side, side)
