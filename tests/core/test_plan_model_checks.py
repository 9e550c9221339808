"""What a plan may not say of its model and of what is fitted beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidPlan
from collegium.core.plan import ModelRef, Plan, Rounds, Simulation, SiteRef, StrategyConfig
from collegium.core.plan_file import write_plan
from collegium.core.plan_fitting import Calibration, Statistics
from collegium.core.plan_training import Training

TABLE = ModelRef(
    name="tabular:linear",
    task="classification",
    classes=("no", "yes"),
    trainable="all",
    bounds={"age": (0.0, 100.0)},
    categories={"pain": ("1", "2")},
)
IMAGE = ModelRef(
    name="torchvision:resnet18", task="classification", classes=("no", "yes"), image=(28, 28, 1)
)
BASE: dict[str, Any] = {
    "consortium": "two",
    "sites": (SiteRef(name="a", public_records=100), SiteRef(name="b", public_records=100)),
    "model": TABLE,
    "rounds": Rounds(count=10),
}


def table(**changes: Any) -> dict[str, Any]:
    return {"model": replace(TABLE, **changes)}


def image(**changes: Any) -> dict[str, Any]:
    return {"model": replace(IMAGE, **changes)}


REFUSED = [
    (image(categories={"pain": ("1",)}), "[model.categories]", "is given for"),
    (image(missing="mean"), "[model] missing", "is given for"),
    (table(bounds={}, categories={}), "[model.bounds]", "is missing"),
    (table(bounds={"age": (16777216.0, 16777217.0)}), "[model.bounds] age", "too narrow"),
    (table(bounds={"age": (-3e38, 3e38)}), "[model.bounds] age", "too wide"),
    (table(bounds={"age": (0.0, 1e39)}), "[model.bounds] age", "too wide"),
    (table(categories={"age": ("1",)}), "[model.categories] age", "has bounds"),
    (table(categories={"pain": ("1", "1")}), "[model.categories] pain", "twice"),
    (table(categories={"pain": ()}), "[model.categories] pain", "no category"),
    (image(image=(28, 28)), "[model] image", "is not height"),
    (image(image=(28, 28, 2)), "[model] image", "is not height"),
    (table(class_weights=(1.0,)), "[model] class_weights", "1 weights for 2"),
    (table(target=(0.0, 1.0)), "[model] target", "is given"),
    (table(task="regression", classes=()), "[model] target", "is missing"),
    (
        table(task="survival", classes=(), target=(0.0, 5.0, 5.0)),
        "[model] target",
        "does not fit",
    ),
    ({"strategy": StrategyConfig(ema=0.9, iterate_average=0.5)}, "[strategy] ema", "beside"),
    ({"statistics": Statistics(normalise=False)}, "[statistics]", "asks for nothing"),
    (
        table(categories={}) | {"statistics": Statistics(vocabulary=True)},
        "[statistics] vocabulary",
        "no [model.categories]",
    ),
    (
        table(classes=("a", "b", "c")) | {"calibration": Calibration()},
        "[calibration] criterion",
        "3 classes",
    ),
    (
        {"calibration": Calibration(criterion="none", temperature=False)},
        "[calibration]",
        "asks for nothing",
    ),
    (
        {"calibration": Calibration(share=0.7), "statistics": Statistics(share=0.7)},
        "[statistics] share",
        "leave the training nothing",
    ),
    ({"training": Training(augmentations=2)}, "[training] augmentations", "augment is none"),
    ({"training": Training(augment="flip")}, "[training] augment", "no images"),
    ({"training": Training(warm_head=10)}, "[training] warm_head", "not below"),
    (image(trainable="head") | {"training": Training(warm_head=2)}, "[training] warm_head", "set"),
    ({"simulation": Simulation(dataset="files")}, "[simulation] files", "is missing"),
    (
        {"simulation": Simulation(dataset="sklearn:digits", files="sites")},
        "[simulation] files",
        "is set beside",
    ),
]


@pytest.mark.parametrize(("changes", "where", "what"), REFUSED)
def test_a_contradiction_is_found_alone(changes: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        Plan(**(BASE | changes))
    (problem,) = caught.value.problems
    assert problem.where == where
    assert what in problem.what


@pytest.mark.parametrize(
    "changes",
    [
        {},
        image(),
        table(class_weights=(1.0, 3.0)),
        table(task="regression", classes=(), target=(0.0, 1.0)),
        {"statistics": Statistics(vocabulary=True), "calibration": Calibration()},
        image() | {"training": Training(augment="flip", augmentations=4)},
        table(task="plugin:ours"),
    ],
)
def test_what_fits_together_is_allowed(changes: dict[str, Any]) -> None:
    Plan(**(BASE | changes))


def test_a_plan_with_every_new_table_reads_as_it_was_written(tmp_path: Path) -> None:
    model = replace(TABLE, options={"hidden": 64.0}, class_weights=(1.0, 2.5), missing="flag")
    plan = Plan(
        **(
            BASE
            | {
                "model": model,
                "statistics": Statistics(vocabulary=True, min_count=5.0),
                "calibration": Calibration(criterion="sensitivity"),
                "strategy": StrategyConfig(ema=0.9),
            }
        )
    )
    path = tmp_path / "plan.toml"
    path.write_text(write_plan(plan))
    assert Plan.load(path) == plan
    assert Plan.load(path).digest == plan.digest


def test_the_order_of_categories_is_part_of_the_agreement() -> None:
    plan = Plan(**BASE)
    other = Plan(**(BASE | table(categories={"pain": ("2", "1")})))
    assert plan.digest != other.digest


def test_files_lie_beside_the_plan(tmp_path: Path) -> None:
    plan = Plan(**(BASE | {"simulation": Simulation(dataset="files", files="sites")}))
    (tmp_path / "plan.toml").write_text(write_plan(plan))
    found = Plan.load(tmp_path / "plan.toml")
    assert found.simulation is not None
    assert found.simulation.files == str(tmp_path / "sites")
    assert found.digest == plan.digest
