"""Varied public records for distillation: shifted, blended, noised, but never made impossible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ..core.errors import InvalidInput
from ..core.plan_edge import Distillation
from ..core.plan_model import ModelRef
from ..models.cards import InputKind
from ..models.registry import input_kind
from ..privacy.augment import Augment


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """What a raw record is: its kind, and of a table the range of each column of numbers.

    ``ranges`` holds highest minus lowest of the first columns; those after them are categories.
    """

    kind: InputKind
    ranges: tuple[float, ...] = ()


def reads_of(ref: ModelRef) -> Reads:
    """Return what the records of a plan's model are."""
    ranges = tuple(high - low for low, high in ref.bounds.values())
    return Reads(kind=input_kind(ref), ranges=ranges)


def varies(reads: Reads, recipe: Distillation) -> bool:
    """Return whether ``vary`` changes anything about such records."""
    blends = reads.kind in ("image", "table") and (recipe.mixup > 0 or recipe.noise > 0)
    return blends or recipe.augment != "none"


def vary(x: Tensor, reads: Reads, recipe: Distillation, random: Generator) -> Tensor:
    """Return records (batch, ...) varied as the recipe says and as their kind allows.

    Images are shifted or mirrored, blended and noised; the numbers of tables are blended and
    noised, their categories and what is missing stay; token numbers stay as they are. Raises
    ``InvalidInput`` for shifts of what is no image.
    """
    if recipe.augment != "none" and reads.kind != "image":
        raise InvalidInput(
            f"[distillation] augment = '{recipe.augment}' for records of the kind '{reads.kind}'",
            why="only images can be shifted or mirrored",
            cure='write augment = "none"',
        )
    if reads.kind == "image":
        return augment(_moved(x, recipe, random), recipe, random)
    return _varied_rows(x, reads, recipe, random) if reads.kind == "table" else x


def augment(x: Tensor, recipe: Distillation, random: Generator) -> Tensor:
    """Blend some records (batch, ...) with others and add noise, within the batch's range.

    Mixup without labels (Zhang et al. 2018): the teacher answers for the blend itself.
    """
    shape = (len(x), *(1 for _ in x.shape[1:]))
    low, high = x.amin(), x.amax()
    share = _shares(shape, recipe, random)
    blended = x * (1 - share) + x.flip(0) * share
    spread = torch.rand(shape, generator=random) * recipe.noise * (high - low)
    noise = torch.randn(x.shape, generator=random) * spread
    return torch.minimum(torch.maximum(blended + noise, low), high)


def _varied_rows(x: Tensor, reads: Reads, recipe: Distillation, random: Generator) -> Tensor:
    """Return (batch, columns) whose numbers are varied; NaN and categories stay."""
    count = len(reads.ranges)
    numbers, others = x[:, :count], x.flip(0)[:, :count]
    share = _shares((len(x), 1), recipe, random)
    blended = torch.where(others.isnan(), numbers, numbers * (1 - share) + others * share)
    spread = torch.rand((len(x), 1), generator=random) * recipe.noise
    noise = torch.randn(numbers.shape, generator=random) * spread * torch.tensor(reads.ranges)
    return torch.cat([blended + noise, x[:, count:]], dim=1)  # the model clips to its bounds


def _shares(shape: tuple[int, ...], recipe: Distillation, random: Generator) -> Tensor:
    """Return how much of the other record goes into each: up to a half of some, none of most."""
    mixed = torch.rand(shape, generator=random) < recipe.mixup
    return torch.rand(shape, generator=random) * 0.5 * mixed


def _moved(x: Tensor, recipe: Distillation, random: Generator) -> Tensor:
    if recipe.augment == "none":
        return x
    draws = torch.rand((len(x), 1, 3), generator=random, dtype=torch.float64)
    # uniforms of (0, 1], as the shifts want them
    uniforms = 1.0 - np.asarray(draws.numpy())
    return Augment(kind=recipe.augment).vary(x, torch.zeros(len(x)), uniforms)[0]
