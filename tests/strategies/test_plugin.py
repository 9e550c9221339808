"""A strategy of another package: found by its entry point, refused when it is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collegium.core.errors import NotAvailable
from collegium.core.layout import Layout
from collegium.core.plan import Plan
from collegium.strategies.catalog import step_bound, strategy_for

CODE = '''
"""Half of the weighted mean: a strategy of another package."""
from collegium.strategies.mean import Mean

def build(plan, *, average):
    return Mean(server_learning_rate=plan.strategy.server_learning_rate / 2, average=average)

def step_bound(plan, *, update_norm, size):
    return plan.strategy.server_learning_rate / 2 * update_norm
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path, as pip would leave it."""
    (tmp_path / "halfmean_strategy.py").write_text(CODE, "utf-8")
    info = tmp_path / "halfmean-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halfmean\nVersion: 1.0\n", "utf-8")
    lines = "[collegium.strategies]\nhalf = halfmean_strategy\nnone = halfmean_strategy:CODE\n"
    (info / "entry_points.txt").write_text(lines + "no = json\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_it_runs_and_bounds_its_own_round(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan(strategy={"name": "plugin:half", "server_learning_rate": 4.0})
    strategy = strategy_for(plan)
    state = strategy.fold(strategy.init(Layout.of({"w": (1,)})), np.ones(1, np.float32), 1.0)
    after, _ = strategy.finish(state, np.zeros(1, np.float32))
    np.testing.assert_array_equal(after, [2.0])
    assert step_bound(plan, update_norm=3.0, size=1) == 6.0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["plugin:no", "plugin:none", "plugin:hlf"])
def test_what_is_no_strategy_is_refused(make_plan: Callable[..., Plan], name: str) -> None:
    plan = make_plan(strategy={"name": name})
    with pytest.raises(NotAvailable) as caught:
        strategy_for(plan)
    assert name in str(caught.value)
    with pytest.raises(NotAvailable):
        step_bound(plan, update_norm=1.0, size=1)
