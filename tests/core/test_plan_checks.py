"""Each contradiction inside a plan is found, named by its key, and found alone."""

from dataclasses import replace
from typing import Any

import pytest

from collegium.core.errors import InvalidPlan
from collegium.core.plan import (
    Evaluation,
    ModelRef,
    Plan,
    Privacy,
    Rounds,
    SiteRef,
    StrategyConfig,
)
from collegium.core.plan_tables import examine

KEY = "ed25519:" + "A" * 43 + "="
SITES = (SiteRef(name="north", public_records=300), SiteRef(name="south", public_records=1000))
TABULAR = ModelRef(
    name="tabular:linear",
    task="classification",
    classes=("a", "b"),
    bounds={"age": (0.0, 99.0)},
)
BASE: dict[str, Any] = {
    "consortium": "tests",
    "sites": SITES,
    "model": ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
    "rounds": Rounds(count=10),
    "privacy": Privacy(delta=1e-4, sampling_rate=0.25),
}


def model(**changes: Any) -> ModelRef:
    return replace(BASE["model"], **changes)


def privacy(**changes: Any) -> Privacy:
    return replace(BASE["privacy"], **changes)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"sites": ()}, "[[sites]]", "there is no site"),
    ({"sites": (SITES[0], SITES[0])}, "[[sites]] 1 and 2", 'name "north" is used 2 times'),
    (
        {"sites": tuple(replace(site, public_key=KEY) for site in SITES)},
        "[[sites]] 1 and 2",
        "public_key",
    ),
    ({"sites": (SITES[0], replace(SITES[1], weight=2.0))}, "[[sites]] weight", "not at 1"),
    ({"model": model(classes=())}, "[model] classes", "0 of at least 2"),
    ({"model": model(classes=("0",))}, "[model] classes", "1 of at least 2"),
    ({"model": model(classes=("0", "1", "0"))}, "[model] classes", "stands there 2 times"),
    ({"model": model(task="regression", target=(0.0, 1.0))}, "[model] classes", "are named for"),
    ({"model": model(bounds={"age": (0.0, 1.0)})}, "[model.bounds]", "is given for"),
    ({"model": replace(TABULAR, bounds={})}, "[model.bounds]", "is missing"),
    ({"rounds": Rounds(count=500, local_steps=500)}, "[rounds] local_steps", "250000"),
    ({"strategy": StrategyConfig(beta1=0.5)}, "[strategy] beta1", "is set"),
    ({"strategy": StrategyConfig(tau=1.0)}, "[strategy] tau", "is set"),
    ({"evaluation": Evaluation(rounds="every:11")}, "[evaluation] rounds", "longer than"),
    (
        {"evaluation": Evaluation(rounds="every:2", origin="private")},
        "[evaluation] rounds",
        "private origin",
    ),
    ({"privacy": privacy(delta=1e-3)}, "[privacy] delta", "is not below 1/1000"),
    ({"privacy": privacy(batch_cap=249)}, "[privacy] batch_cap", "mean batch of 250"),
]


@pytest.mark.parametrize(("changes", "where", "what"), REFUSED)
def test_a_contradiction_is_found_alone(changes: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        Plan(**(BASE | changes))
    assert [problem.where for problem in caught.value.problems] == [where]
    assert what in caught.value.problems[0].what


@pytest.mark.parametrize(
    "changes",
    [
        {"model": TABULAR},
        {"model": model(task="regression", classes=(), target=(0.0, 1.0))},
        {"model": model(trainable="lora:8")},
        {"model": model(trainable="last:2")},
        {"evaluation": Evaluation(rounds="every:10")},
        {"evaluation": Evaluation(origin="private")},
        {"privacy": privacy(batch_cap=250)},
        {"privacy": privacy(delta=0.5, enabled=False)},
        {"privacy": privacy(delta=9.9e-4)},
        {"strategy": StrategyConfig(name="fedadam", beta1=0.5)},
        {"sites": (replace(SITES[0], weight=1), replace(SITES[1], weight=2.0))},
    ],
)
def test_the_edge_of_each_rule_is_allowed(changes: dict[str, Any]) -> None:
    Plan(**(BASE | changes))


def test_rules_still_speak_where_other_keys_could_not_be_read() -> None:
    tables: dict[str, Any] = {
        "schema": 2,
        "consortium": {"name": "tests"},
        "sites": [{"name": "north", "public_records": 700}, {"name": "north"}],
        "model": {"name": "collegium:x", "task": "classification", "classes": ["0", "0"]},
        "rounds": {"count": "ten"},
        "privacy": {"delta": 0.5, "epsilon": "small"},
    }
    assert [problem.where for problem in examine(tables)[1]] == [
        "schema",
        "[[sites]] 2 public_records",
        "[[sites]] 1 and 2",
        "[model] classes",
        "[rounds] count",
        "[privacy] epsilon",
        "[privacy] delta",
    ]
