"""A student that learned standardised logits gets its teacher's scale back, by one factor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from collegium.edge.rescale import Rescaled, rescaled


class Times(nn.Module):
    """Logits that are a linear map of the record."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.get_buffer("weight").T


ROWS = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
TEACHER = Times([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])


def test_the_factor_is_the_ratio_of_the_scales() -> None:
    found = rescaled(TEACHER, Times([[8.0, 0.0], [0.0, 8.0], [-8.0, -8.0]]), ROWS)
    assert float(found.get_buffer("factor")) == pytest.approx(0.25)
    x = torch.from_numpy(ROWS)
    torch.testing.assert_close(found(x), TEACHER(x))


def test_an_offset_common_to_all_classes_changes_nothing() -> None:
    class Shifted(Times):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 7.0

    student = Shifted([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]])
    assert float(rescaled(TEACHER, student, ROWS).get_buffer("factor")) == pytest.approx(0.5)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_students_that_have_nothing_in_common_keep_their_scale(weight: float) -> None:
    student = Times([[weight, 0.0], [0.0, weight], [-weight, -weight]])
    found = rescaled(TEACHER, student, ROWS)
    assert isinstance(found, Rescaled) and float(found.get_buffer("factor")) == 1.0
