"""The demo's plans: real files, valid in every room, with bounds for the features they name."""

import pytest

from collegium.core.errors import UsageError
from collegium.core.plan import Plan
from collegium.data.datasets import load
from collegium.server import planner
from collegium.simulations.demo import TASKS, demo_plan


@pytest.mark.parametrize("task", TASKS)
def test_plan_fits_its_data_and_its_budget(task: str) -> None:
    plan = demo_plan(task)
    assert plan.simulation is not None
    data = load(plan.simulation.dataset)
    assert plan.model.classes == data.classes
    assert sum(site.public_records for site in plan.sites) >= len(data.y)
    assert plan.privacy.epsilon == 3.0
    assert plan.privacy.delta < 1 / max(site.public_records for site in plan.sites)
    assert planner.resolve(plan).epsilon <= plan.privacy.epsilon


def test_bounds_name_the_features_in_their_order() -> None:
    plan = demo_plan("breast-cancer")
    assert tuple(plan.model.bounds) == load("sklearn:breast_cancer").features


def test_bounds_are_not_the_records_own_extremes() -> None:
    data = load("sklearn:breast_cancer")
    bounds = demo_plan("breast-cancer").model.bounds.values()
    for column, (low, high) in zip(data.x.T, bounds, strict=True):
        assert high != pytest.approx(float(column.max()), rel=1e-4)
        assert low == 0.0 or low != pytest.approx(float(column.min()), rel=1e-4)


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean breast-cancer"):
        demo_plan("breast_cancer")


def test_demo_plan_is_a_plan() -> None:
    assert isinstance(demo_plan("digits"), Plan)
