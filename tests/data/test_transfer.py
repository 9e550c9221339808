"""The edge stage's sets: synthetic, within public bounds, and no others."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from collegium.core.errors import InvalidInput
from collegium.core.plan import Plan
from collegium.data.transfer import ROWS, transfer_set

MakePlan = Callable[..., Plan]


def test_rows_within_bounds(make_plan: MakePlan) -> None:
    plan = make_plan()
    found = transfer_set(plan, seed=1)
    assert found.origin == "synthetic"
    assert found.y is None
    assert found.x.shape == (ROWS, 3)
    assert found.x.dtype == np.float32
    assert found.x.min() >= -1 and found.x.max() <= 1
    assert abs(found.x.mean()) < 0.05
    assert transfer_set(plan, seed=1).digest == found.digest
    assert transfer_set(plan, seed=2).digest != found.digest


@pytest.mark.parametrize("name", ["sklearn:digits", "csv:records", "site:north"])
def test_nothing_else(make_plan: MakePlan, name: str) -> None:
    plan = make_plan()
    with pytest.raises(InvalidInput, match="public or synthetic"):
        transfer_set(replace(plan, edge=replace(plan.edge, transfer=name)), seed=0)
