"""Students of images: plain Conv-BatchNorm-ReLU nets of any width, for pixels of any size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ..core.errors import InvalidInput
from ..models.images import ImagePreprocess

Blocks = tuple[tuple[int, int], ...]
"""(channels, stride) of each convolution."""
TINY_BLOCKS: Blocks = ((24, 1), (32, 2), (28, 1))  # of images up to SMALL_SIDE
WIDTHS: Mapping[str, int] = MappingProxyType({"tiny": 16, "small": 24, "base": 40})
SMALL_SIDE = 16  # pixels up to which the head sees every place, not their average
LARGE_SIDE = 64  # pixels from which the first convolution halves
LEAST_WIDTH, MOST_WIDTH = 4, 160


class ConvNet(nn.Module):
    """Raw images to class logits by convolutions of 3 x 3, each with BatchNorm and ReLU.

    BatchNorm is allowed here, because everything a student sees is public; it is folded into
    the convolutions at export. ``preprocess`` maps raw images to (batch, channels, height,
    width), ``shape`` being the last three. ``pooled``: the head reads averages over all places.
    """

    def __init__(
        self,
        preprocess: nn.Module,
        shape: tuple[int, int, int],
        blocks: Blocks,
        classes: int,
        *,
        pooled: bool,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        layers: list[nn.Module] = []
        channels, height, width = shape
        for outputs, stride in blocks:
            layers.append(nn.Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            channels, height, width = outputs, -(-height // stride), -(-width // stride)
        layers += [nn.AdaptiveAvgPool2d(1)] if pooled else []
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(channels * (1 if pooled else height * width), classes)

    def features(self, x: Tensor) -> Tensor:
        """Map (batch, ...) raw pixels to what the head reads."""
        return self.body(self.preprocess(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) raw pixels to (batch, classes) logits."""
        return self.head(self.features(x))


def conv_student(
    teacher_preprocess: nn.Module, shape: tuple[int, ...], classes: int, *, size: str | int
) -> ConvNet:
    """Return an untrained net for raw images of ``shape``, by size or by channels of its start.

    It sees the images in their own size where the teacher enlarges them, which costs a student
    several times the work and shows it nothing more. Raises ``InvalidInput`` for records that
    are no images.
    """
    preprocess = native(teacher_preprocess, shape)
    with torch.no_grad():
        seen = preprocess(torch.zeros(1, *shape))
    if seen.dim() != 4:
        raise InvalidInput(
            f"a convolutional student cannot read records of shape {shape}",
            why="the global model's first layer makes no images of them",
            cure='write [edge] student = "same"',
        )
    channels, height, width = (int(number) for number in seen.shape[1:])
    side = max(height, width)
    if size == "tiny" and side <= SMALL_SIDE:
        blocks = TINY_BLOCKS
    else:
        blocks = blocks_for(WIDTHS[size] if isinstance(size, str) else size, side)
    pooled = side > SMALL_SIDE
    return ConvNet(preprocess, (channels, height, width), blocks, classes, pooled=pooled)


def blocks_for(width: int, side: int) -> Blocks:
    """Return pairs of convolutions that halve an image until its side is below 8 pixels.

    They begin with ``width`` channels, and double them twice at most.
    """
    found = [(width, 1), (width, 1)]
    if side >= LARGE_SIDE:
        found, side = [(width, 2), (width, 1)], -(-side // 2)
    channels = width
    while side >= 8:
        channels, side = min(2 * channels, 4 * width), -(-side // 2)
        found += [(channels, 2), (channels, 1)]
    return tuple(found)


def native(preprocess: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Return a copy of a first layer that scales values alike, but does not enlarge images."""
    copied = copy.deepcopy(preprocess)
    if isinstance(copied, ImagePreprocess) and copied.size is not None and len(shape) == 3:
        height, width = copied.size
        if height >= shape[0] and width >= shape[1]:
            copied.size = None
    return copied
