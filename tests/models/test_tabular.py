"""The linear model: public bounds only, zero at first."""

import torch

from collegium.core.plan import ModelRef
from collegium.models.tabular import LinearModel

REF = ModelRef(
    name="tabular:linear",
    task="classification",
    classes=("no", "yes"),
    bounds={"age": (0.0, 100.0), "score": (-1.0, 3.0)},
)


def test_inputs_are_clipped_to_the_bounds_and_scaled() -> None:
    x = torch.tensor([[50.0, -1.0], [0.0, 3.0], [250.0, -9.0], [75.0, 2.0]])
    scaled = LinearModel(REF, 2).features(x)
    assert scaled.tolist() == [[0.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [0.5, 0.5]]


def test_it_starts_without_an_opinion() -> None:
    assert LinearModel(REF, 3)(torch.tensor([[12.0, 0.0]])).tolist() == [[0.0, 0.0, 0.0]]


def test_bounds_are_not_part_of_what_travels_as_weights() -> None:
    assert list(LinearModel(REF, 2).state_dict()) == ["head.weight", "head.bias"]
