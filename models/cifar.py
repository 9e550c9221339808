"""The CIFAR ResNets of He et al. (CVPR 2016, section 4.2) with their open weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from .heads import Headed, scaled, zero_head
from .images import IMAGENET_MEAN, IMAGENET_SD, ImagePreprocess, resized
from .outputs import outputs
from .states import Source, load_strictly

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two convolutions and a shortcut without weights (option A: skipped pixels)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, ...)."""
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra, self.extra)
            )
        return functional.relu(out + x)


class Trunk(nn.Module):
    """6 n + 1 convolutions and an average: (batch, 3, height, width) to (batch, 64)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        count = (depth - 2) // 6
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], count, 1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], count, 2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], count, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 3, height, width) to (batch, 64)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


def _stage(inputs: int, outputs: int, count: int, stride: int) -> nn.Sequential:
    blocks = [Block(inputs, outputs, stride)]
    return nn.Sequential(*blocks, *(Block(outputs, outputs, 1) for _ in range(count - 1)))


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the net with a zero head; ``source`` None: with random weights."""
    trunk = Trunk(int(ref.name.removeprefix("cifar:resnet")))
    if source is not None:
        state = {name: value for name, value in source().items() if not _is_head(name)}
        load_strictly(trunk, state, ref.name)
    return Headed(
        ImagePreprocess(resized(card, ref), IMAGENET_MEAN, IMAGENET_SD),
        scaled(trunk, card.option(ref, "feature_norm")),
        zero_head(WIDTHS[-1], outputs(ref)),
    )


def open_model(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module | None:
    """Return the untouched net when the plan has CIFAR-10's classes in their order."""
    if source is None or ref.classes != card.classes:
        return None
    state = source()
    trunk = Trunk(int(ref.name.removeprefix("cifar:resnet")))
    head = nn.Linear(WIDTHS[-1], len(card.classes))
    load_strictly(trunk, {n: v for n, v in state.items() if not _is_head(n)}, ref.name)
    own = {n.removeprefix("linear."): v for n, v in state.items() if _is_head(n)}
    load_strictly(head, own, ref.name)
    return Headed(ImagePreprocess(resized(card, ref), IMAGENET_MEAN, IMAGENET_SD), trunk, head)


def _is_head(name: str) -> bool:
    return name.startswith("linear.")
