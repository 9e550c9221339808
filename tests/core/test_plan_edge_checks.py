"""Names of the edge stage are checked before the first round, not after the last one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from collegium.core.errors import InvalidPlan
from collegium.core.plan import EdgeConfig, ModelRef, Plan, Rounds, Simulation, SiteRef
from collegium.core.plan_edge import Distillation

PLAN = Plan(
    consortium="two",
    sites=(SiteRef(name="north", public_records=300), SiteRef(name="south", public_records=300)),
    model=ModelRef(name="collegium:glyph-cnn", task="classification", classes=tuple("0123456789")),
    rounds=Rounds(count=2),
)


@pytest.mark.parametrize(
    "edge",
    [
        {"student": "cnn:base"},
        {"student": "size:100000"},
        {"student": "layers:3"},
        {"student": "mlp:tiny"},
        {"student": "mlp:base"},
        {"student": "cifar:resnet20"},
        {"transfer": "synthetic:noise"},
        {"transfer": "sha256:" + "0a" * 32},
        {"recipe": "int8-dynamic"},
    ],
)
def test_known_names(edge: dict[str, Any]) -> None:
    assert replace(PLAN, edge=EdgeConfig(**edge)).edge


@pytest.mark.parametrize(
    ("edge", "key", "cure"),
    [
        ({"student": "cnn:tinny"}, "[edge] student", 'did you mean "cnn:tiny"?'),
        ({"student": "size:0"}, "[edge] student", ""),
        ({"student": "cifar:"}, "[edge] student", ""),
        ({"transfer": "publc"}, "[edge] transfer", 'did you mean "public"?'),
        ({"transfer": "sha256:00"}, "[edge] transfer", "use one of"),
        ({"recipe": "int8-statik"}, "[edge] recipe", 'did you mean "int8-static"?'),
        ({"recipe": "entropy"}, "[edge] recipe", "use one of"),
    ],
)
def test_unknown_names(edge: dict[str, Any], key: str, cure: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        replace(PLAN, edge=EdgeConfig(**edge))
    (problem,) = caught.value.problems
    assert problem.where == key and cure in problem.cure


@pytest.mark.parametrize("student", ["same", "none"])
def test_a_student_that_learns_nothing_is_not_distilled(student: str) -> None:
    with pytest.raises(InvalidPlan, match=r"\[distillation\]"):
        replace(PLAN, edge=EdgeConfig(student=student), distillation=Distillation())


def test_a_loss_and_records_that_do_not_suit() -> None:
    table = ModelRef(
        name="tabular:linear",
        task="classification",
        classes=("no", "yes"),
        bounds={"age": (0.0, 100.0)},
    )
    asked = Distillation(loss="logit-std", augment="flip")
    with pytest.raises(InvalidPlan) as caught:
        replace(PLAN, model=table, distillation=asked)
    assert [problem.where for problem in caught.value.problems] == [
        "[distillation] loss",
        "[distillation] augment",
    ]
    assert replace(PLAN, distillation=asked)


def test_a_simulation_sets_its_public_records_aside() -> None:
    edge, simulation = EdgeConfig(transfer="public"), Simulation(dataset="sklearn:digits")
    with pytest.raises(InvalidPlan, match="public_share"):
        replace(PLAN, edge=edge, simulation=simulation)
    assert replace(PLAN, edge=edge, simulation=replace(simulation, public_share=0.1))
    assert replace(PLAN, edge=edge), "a real coordinator names its file when it publishes"


def test_keys_that_say_nothing_keep_the_digest() -> None:
    assert replace(PLAN, edge=EdgeConfig(prefer="speed")).digest == PLAN.digest
    assert replace(PLAN, edge=EdgeConfig(prefer="size")).digest != PLAN.digest
    assert replace(PLAN, distillation=Distillation()).digest != PLAN.digest
