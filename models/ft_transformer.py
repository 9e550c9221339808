"""A transformer over the features of a table (Gorishniy et al., NeurIPS 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidInput
from .heads import Headed, zero_head
from .outputs import outputs
from .preprocess import TablePreprocess

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard
    from .states import Source


class FeatureTokens(nn.Module):
    """Inputs of a table to one token per feature, and a first one for the answer.

    The paper's tokenizer (section 3.3) has a weight and a bias vector per number and a table per
    category. Here each token's own inputs and a 1 of its own stand in one sparse row, and one
    linear layer maps all rows: the same function, and every record's gradient can be followed.
    """

    def __init__(self, preprocess: TablePreprocess, width: int) -> None:
        super().__init__()
        owner = list(range(preprocess.numbers)) * (2 if preprocess.flags else 1)
        for place, size in enumerate(preprocess.sizes):
            owner += [preprocess.numbers + place] * size
        tokens = 1 + preprocess.numbers + len(preprocess.sizes)
        mask = torch.zeros(tokens, len(owner))
        for column, feature in enumerate(owner):
            mask[1 + feature, column] = 1  # token 0 reads nothing: it collects the answer
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("ones", torch.eye(tokens), persistent=False)
        self.embed = nn.Linear(len(owner) + tokens, width, bias=False)
        nn.init.uniform_(self.embed.weight, -(width**-0.5), width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs) to (batch, tokens, width)."""
        own = x.unsqueeze(1) * self.get_buffer("mask")  # (batch, tokens, inputs)
        ones = self.get_buffer("ones").expand(len(x), -1, -1)
        return self.embed(torch.cat([own, ones], dim=2))


class Block(nn.Module):
    """Attention and a two-layer net, each with LayerNorm before it and a way around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.mix = nn.Linear(width, width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same."""
        seen = self.first(x)
        parts = [
            part(seen).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = x + self.mix(mixed)
        return x + self.shrink(functional.gelu(self.grow(self.second(x))))


class FirstToken(nn.Module):
    """The first token, normalised: (batch, tokens, width) to (batch, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to (batch, width)."""
        return functional.relu(self.norm(x[:, 0]))


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the transformer with a zero head; raises ``InvalidInput`` for an odd width."""
    del source
    width, heads = card.whole(ref, "width"), card.whole(ref, "heads")
    if width % heads:
        raise InvalidInput(
            f"[model.options] width {width} is not a multiple of heads {heads}",
            why="every head reads its own part of each token",
            cure="write a width that heads divides",
        )
    preprocess = TablePreprocess(ref)
    blocks = [Block(width, heads) for _ in range(card.whole(ref, "layers"))]
    body = nn.Sequential(FeatureTokens(preprocess, width), *blocks, FirstToken(width))
    return Headed(preprocess, body, zero_head(width, outputs(ref)))
