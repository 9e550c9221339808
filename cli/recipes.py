"""Defaults of a private training, by kind of records and trainable part; see docs/recipes.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

Kind = Literal["table", "image", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The numbers that ``collegium init`` writes, and on what they were measured.

    ``learning_rate`` is the server's, for one noisy step a round; ``measured`` is empty where
    nothing of this kind was measured and the nearest measured recipe stands in.
    """

    epsilon: float
    rounds: int
    sampling_rate: float
    clip_norm: float
    learning_rate: float
    iterate_average: float = 0.5
    measured: str = ""


RECIPES: Mapping[tuple[Kind, str], Recipe] = MappingProxyType({
    ("table", "head"): Recipe(
        epsilon=1.0, rounds=60, sampling_rate=0.3, clip_norm=1.0, learning_rate=2.0,
        measured="sklearn's breast cancer data",
    ),
    ("image", "head"): Recipe(
        epsilon=1.0, rounds=60, sampling_rate=0.3, clip_norm=1.0, learning_rate=4.0,
        measured="sklearn's digits",
    ),
    ("image", "bias"): Recipe(
        epsilon=1.0, rounds=60, sampling_rate=0.3, clip_norm=1.0, learning_rate=0.5,
        measured="sklearn's digits",
    ),
    ("image", "all"): Recipe(
        epsilon=1.0, rounds=60, sampling_rate=0.3, clip_norm=1.0, learning_rate=0.25,
        measured="sklearn's digits",
    ),
})  # fmt: skip
"""What was measured, by kind of records and trainable part."""


def recipe_for(kind: Kind, trainable: str) -> Recipe:
    """Return the recipe of a kind of records and a trainable part, or the nearest measured one.

    ``norm``, ``lora:R`` and ``last:N`` train few coordinates deep inside, as ``bias`` does.
    """
    if (found := RECIPES.get((kind, trainable))) is not None:
        return found
    part = trainable if trainable in ("head", "all") else "bias"
    return replace(RECIPES["image", part], measured="")
