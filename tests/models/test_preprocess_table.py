"""A table's first layer, by hand: numbers, missing ones, categories."""

from __future__ import annotations

import math

import torch

from collegium.core.plan import ModelRef
from collegium.models.preprocess import Standardise, TablePreprocess

REF = ModelRef(
    name="tabular:linear",
    task="classification",
    classes=("no", "yes"),
    bounds={"age": (0.0, 100.0)},
    categories={"pain": ("a", "b", "c")},
    missing="flag",
    unknown="other",
)


def test_a_record_becomes_scaled_numbers_flags_and_one_hots() -> None:
    layer = TablePreprocess(REF)
    x = torch.tensor([[75.0, 1.0], [math.nan, -1.0], [250.0, 2.0]])
    assert layer.width == 1 + 1 + 3
    assert layer(x).tolist() == [
        [0.5, 0.0, 0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 1.0],
    ]


def test_an_index_that_is_no_category_is_none_of_them() -> None:
    others = [math.nan, -7.0, -1.0, 3.0, 99.0, math.inf, -math.inf, 1e30]
    x = torch.tensor([[0.0, other] for other in others])
    assert TablePreprocess(REF)(x)[:, 2:].tolist() == [[0.0] * 3] * len(others)


def test_common_statistics_move_scale_and_cut_off() -> None:
    layer = Standardise(1, clip=3.0)
    layer.get_buffer("mean").fill_(0.5)
    layer.get_buffer("scale").fill_(0.125)
    moved = layer(torch.tensor([[0.625], [1.0], [0.0]])).flatten().tolist()
    assert moved == [1.0, 3.0, -3.0]


def test_a_missing_number_is_the_common_mean_after_standardising() -> None:
    layer = TablePreprocess(REF)
    layer.standardise = Standardise(1, clip=3.0)
    layer.standardise.get_buffer("mean").fill_(0.5)
    assert layer(torch.tensor([[math.nan, 0.0]]))[0, 0].item() == 0.0


def test_a_merged_category_is_none_of_them() -> None:
    layer = TablePreprocess(REF)
    layer.get_buffer("kept")[1] = 0.0
    assert layer(torch.tensor([[0.0, 1.0]]))[0, 2:].tolist() == [0.0, 0.0, 0.0]
