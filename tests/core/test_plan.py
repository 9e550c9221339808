"""A plan: the same checks by hand as from a file, and a digest that means what was agreed."""

from collections.abc import Callable
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
    Simulation,
    SiteRef,
    StrategyConfig,
)

KEY = "ed25519:" + "A" * 43 + "="


def make(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "consortium": "four-hospitals",
        "sites": (
            SiteRef(name="north", public_records=300),
            SiteRef(name="south", public_records=100),
        ),
        "model": ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
        "rounds": Rounds(count=60),
        "privacy": Privacy(delta=1e-4),
    }
    return Plan(**(values | changes))


def problems(build: Callable[[], object]) -> list[str]:
    with pytest.raises(InvalidPlan) as caught:
        build()
    return [problem.where for problem in caught.value.problems]


def test_defaults_are_those_of_the_schema() -> None:
    plan = make()
    assert plan.strategy == StrategyConfig(
        name="mean", server_learning_rate=1.0, iterate_average=0.0
    )
    assert plan.codec.name == "bf16" and plan.privacy.batch_cap == 0
    assert plan.evaluation.every == 0 and plan.simulation is None
    assert plan.site("south").fold_weight == 100.0
    with pytest.raises(KeyError):
        plan.site("west")


def test_every_problem_of_a_plan_built_by_hand_is_reported_at_once() -> None:
    found = problems(
        lambda: make(
            rounds=Rounds(count=0, quorum=2.0),
            privacy=Privacy(epsilon=-1.0, delta=1e-4, sampling_rate=float("nan")),
            strategy=StrategyConfig(iterate_average=1.0),
        )
    )
    assert found == [
        "[rounds] count",
        "[rounds] quorum",
        "[strategy] iterate_average",
        "[privacy] epsilon",
        "[privacy] sampling_rate",
    ]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"rounds": None}, "[rounds]"),
        ({"model": "glyph-cnn"}, "[model]"),
        ({"sites": ()}, "[[sites]]"),
        ({"sites": None}, "[[sites]]"),
        ({"sites": ("north",)}, "[[sites]] 1"),
        ({"consortium": 4}, "[consortium] name"),
        ({"consortium": ""}, "[consortium] name"),
    ],
)
def test_wrong_types_by_hand_are_problems_not_tracebacks(
    changes: dict[str, Any], where: str
) -> None:
    assert where in problems(lambda: make(**changes))


def test_digest_is_the_agreement_and_not_the_simulation() -> None:
    plan = make()
    played = replace(plan, simulation=Simulation(dataset="sklearn:digits", seed=3))
    assert played.digest == plan.digest
    assert replace(plan, rounds=Rounds(count=61)).digest != plan.digest
    assert replace(plan, sites=plan.sites[::-1]).digest != plan.digest


def test_digest_is_frozen() -> None:
    # A new value means that every signature of every consortium is void: change it knowingly.
    assert make().digest == (
        "sha256:1898a04fd298ad449d06e57a7056ed5b3cb51fa5a7296496b59f2355bcbcafe9"
    )


def test_whole_numbers_and_their_floats_are_the_same_agreement() -> None:
    whole = make(privacy=Privacy(delta=1e-4, epsilon=3, clip_norm=1), rounds=Rounds(count=60))
    assert whole.digest == make().digest


def test_order_of_bounds_is_part_of_the_agreement() -> None:
    def bounded(**bounds: tuple[float, float]) -> Plan:
        return make(
            model=ModelRef(
                name="tabular:linear", task="classification", classes=("a", "b"), bounds=bounds
            )
        )

    first = bounded(age=(0.0, 99.0), weight=(1.0, 200.0))
    second = bounded(weight=(1.0, 200.0), age=(0.0, 99.0))
    assert first.digest != second.digest
    assert first.agreement()["model"]["bounds"] == [["age", 0.0, 99.0], ["weight", 1.0, 200.0]]


def test_agreement_is_plain_json_with_every_default_spelt_out() -> None:
    agreement = make().agreement()
    assert set(agreement) == {
        "schema", "consortium", "sites", "model", "rounds", "strategy", "codec", "evaluation",
        "privacy", "edge",
    }  # fmt: skip
    assert agreement["privacy"]["sampling_rate"] == 0.1
    assert agreement["sites"][0] == {"name": "north", "public_records": 300}


def test_every_n_is_read_from_its_text() -> None:
    assert Evaluation(rounds="every:12").every == 12
