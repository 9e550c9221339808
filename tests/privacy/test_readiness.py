"""Which models may be trained record by record."""

import pytest
from torch import nn

from collegium.privacy.readiness import check


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.SyncBatchNorm(3)])
def test_batch_statistics_frozen_or_not(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    (problem,) = check(nn.Sequential(layer))
    assert "layer '0'" in problem.where
    assert "GroupNorm" in problem.cure


def test_good_models_have_no_problem() -> None:
    assert check(nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten())) == []


def test_all_problems_at_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[2].weight = model[0].weight
    assert len(check(model)) == 2
