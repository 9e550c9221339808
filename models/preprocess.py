"""The model's first layer: raw values in, scaled values out, so that it travels into the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from ..core.plan_model import Bounds, ModelRef


class PixelScale(nn.Module):
    """Add the channel axis and divide by the largest pixel value: 0..``largest`` to 0..1."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, height, width) to (batch, 1, height, width)."""
        return x.unsqueeze(1) / self.largest


class BoundsScale(nn.Module):
    """Clip every feature to its public bounds and scale it to [-1, 1].

    The bounds stand in the plan; nothing here is fitted on records.
    """

    def __init__(self, bounds: dict[str, Bounds]) -> None:
        super().__init__()
        low = torch.tensor([low for low, _ in bounds.values()], dtype=torch.float32)
        high = torch.tensor([high for _, high in bounds.values()], dtype=torch.float32)
        # Not persistent: the bounds travel in the plan and in the exported graph, and a site
        # sends its trainable parameters only.
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, features) raw values to (batch, features) in [-1, 1]."""
        low, high = self.get_buffer("low"), self.get_buffer("high")
        clipped = torch.minimum(torch.maximum(x, low), high)
        return 2 * (clipped - low) / (high - low) - 1


class Standardise(nn.Module):
    """Subtract a common mean, divide by a common deviation, cut off at ``clip`` deviations.

    ``mean`` and ``scale`` (features,) are those of values scaled to [-1, 1], counted by all sites
    before the first round; 0 and 1, with no cutting, until then.
    """

    def __init__(self, features: int, *, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, features) in [-1, 1] to (batch, features) in deviations."""
        moved = (x - self.get_buffer("mean")) / self.get_buffer("scale")
        return torch.clamp(moved, -self.clip, self.clip)


class TablePreprocess(nn.Module):
    """A raw record of a table to the ``width`` inputs of a model.

    Its columns are the features of ``bounds`` as numbers, then those of ``categories`` as
    indices (-1: none of them). Out come the scaled numbers, a missing one as the common mean;
    with ``missing = "flag"`` one 0/1 input each that says so; then one 0/1 input per category.
    ``standardise`` is the identity, and ``kept`` (one 0/1 per category) all ones, unless the
    plan asks for common statistics.
    """

    def __init__(self, ref: ModelRef) -> None:
        super().__init__()
        self.numbers = len(ref.bounds)
        self.sizes = tuple(len(known) for known in ref.categories.values())
        self.flags = ref.missing == "flag"
        self.reads_missing = ref.missing != "refuse"
        self.width = self.numbers * (2 if self.flags else 1) + sum(self.sizes)
        self.bounds = BoundsScale(ref.bounds)
        self.standardise: nn.Module = nn.Identity()
        self.register_buffer("kept", torch.ones(sum(self.sizes)), persistent=False)

    def scaled(self, x: Tensor) -> Tensor:
        """Map (batch, columns) raw values to the (batch, numbers) in [-1, 1], NaN where missing."""
        return self.bounds(x[:, : self.numbers])

    def scaled_numbers(self, x: Tensor) -> Tensor:
        """Map (batch, columns) raw values to (batch, numbers), common mean where one is missing."""
        return torch.nan_to_num(self.standardise(self.scaled(x)), nan=0.0)

    def one_hots(self, x: Tensor) -> list[Tensor]:
        """Map (batch, columns) raw values to one (batch, categories) of 0 and 1 per feature."""
        found: list[Tensor] = []
        start, kept = 0, self.get_buffer("kept")
        for place, size in enumerate(self.sizes):
            column = x[:, self.numbers + place]
            # place 0 is "none of them": -1, and everything that cannot be an index
            known = (column >= 0) & (column < size)  # false for NaN
            index = torch.where(known, column, torch.full_like(column, -1.0)).long() + 1
            hot = functional.one_hot(index, size + 1)[:, 1:].to(x.dtype)
            found.append(hot * kept[start : start + size])
            start += size
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, columns) raw values to (batch, ``width``)."""
        parts: list[Tensor] = []
        if self.numbers:
            parts.append(self.scaled_numbers(x))
            if self.flags:
                parts.append(torch.isnan(x[:, : self.numbers]).to(x.dtype))
        return torch.cat([*parts, *self.one_hots(x)], dim=1)
