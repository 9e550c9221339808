"""The models of the private-step benchmark, written out so that only torch and torchvision run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet, resnet18
from torchvision.models.resnet import BasicBlock


@dataclass(frozen=True, slots=True)
class Case:
    """A model, what of it trains, and one batch; built anew from a fixed seed."""

    build: Callable[[bool], tuple[nn.Module, list[nn.Parameter]]]
    inputs: Callable[[int], Tensor]
    batch: int
    classes: int
    clip_norm: float
    target: float  # the largest ratio to the plain step that issue 3 allows

    def data(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Return ``count`` records (the case's batch unless said) and their labels."""
        torch.manual_seed(1)
        count = count or self.batch
        return self.inputs(count), torch.randint(self.classes, (count,))


class LoRA(nn.Module):
    """A frozen linear layer plus the product of two thin ones (Hu et al., 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, inputs) to (batch, sequence, outputs)."""
        return self.base(x) + 2 * self.b(self.a(x))


class EncoderLayer(nn.Module):
    """One post-norm transformer layer of BERT."""

    def __init__(self, width: int, heads: int, rank: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = LoRA(nn.Linear(width, width), rank)
        self.key = nn.Linear(width, width)
        self.value = LoRA(nn.Linear(width, width), rank)
        self.mix = nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence, width) to the same."""
        split = [
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        seen = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        x = self.first(x + self.mix(seen))
        return self.second(x + self.shrink(functional.gelu(self.grow(x))))


class Bert(nn.Module):
    """BERT-mini for classification: 6 layers of width 384, LoRA on query and value."""

    def __init__(self, *, rank: int = 8, width: int = 384, layers: int = 6) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*(EncoderLayer(width, 6, rank) for _ in range(layers)))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, sequence) tokens to (batch, 2)."""
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.layers(self.norm(self.words(x) + self.places(places)))[:, 0])


class PlainBlock(BasicBlock):
    """torchvision's block without in-place operations, which Opacus hooks cannot bear."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) onwards."""
        identity = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + identity)


def bert(opacus: bool) -> tuple[nn.Module, list[nn.Parameter]]:
    """LoRA adapters and head train."""
    del opacus
    torch.manual_seed(0)
    model = Bert()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".a." in name or ".b." in name or name.startswith("head."))
    return model, trained(model)


def resnet(opacus: bool, *, last_block: bool) -> tuple[nn.Module, list[nn.Parameter]]:
    """resnet18 with GroupNorm as torchvision ships it; for Opacus without in-place operations."""
    torch.manual_seed(0)
    norm = partial(nn.GroupNorm, 32)
    if opacus:
        model = ResNet(PlainBlock, [2, 2, 2, 2], num_classes=10, norm_layer=norm)  # pyright: ignore
        model.relu = nn.ReLU()
    else:
        model = resnet18(num_classes=10, norm_layer=norm)
    if last_block:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(("layer4.1.", "fc.")))
    return model, trained(model)


def small_cnn(opacus: bool) -> tuple[nn.Module, list[nn.Parameter]]:
    """Three convolutions and a head for 28 x 28 grey images; everything trains."""
    del opacus
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    return model, trained(model)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that train, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def images(count: int) -> Tensor:
    """Noise images (count, 3, 64, 64)."""
    return torch.randn(count, 3, 64, 64)


CASES = {
    "bert_lora": Case(bert, lambda n: torch.randint(30522, (n, 64)), 16, 2, 0.1, 1.15),
    "resnet18_last_block": Case(partial(resnet, last_block=True), images, 32, 10, 1.0, 1.3),
    "resnet18_full": Case(partial(resnet, last_block=False), images, 32, 10, 1.0, 1.9),
    "small_cnn": Case(small_cnn, lambda n: torch.randn(n, 1, 28, 28), 256, 10, 1.0, 1.8),
}
