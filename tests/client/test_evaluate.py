"""Private evaluation: counts with noise, charged once, the same bytes for the same question."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.core.messages import BadMessage, Report, Update
from collegium.privacy.accountant import epsilon_of
from collegium.privacy.derive import schedule

Make = Callable[..., Any]


@pytest.fixture
def counter(make_counter: Make, make_plan: Make) -> Any:
    """A site whose test part is private."""
    return make_counter(make_plan(2, rounds=2, evaluation={"origin": "private"}))


def told(counter: Any, **changes: Any) -> Report:
    return Report.open(counter.site.evaluate(counter.ask(round=0, **changes)), counter.public)


def test_counts_leave_noised_and_charged(counter: Any) -> None:
    report = told(counter)
    assert set(report.metrics) == {"correct", "records"}
    assert report.metrics["records"] != 6.0  # what is true never leaves
    assert counter.kinds == ["genesis", "reserve", "commit"]
    reserve = counter.ledger.entries()[1]
    assert (reserve.round, reserve.spec.clip_norm, reserve.steps) == (0, 2**0.5, 1)


def test_the_same_question_gets_the_same_bytes(counter: Any) -> None:
    first = counter.site.evaluate(counter.ask(round=0))
    before = counter.ledger.entries()
    assert counter.site.evaluate(counter.ask(round=0, nonce="another")) == first
    assert counter.ledger.entries() == before


def test_another_model_is_not_told_for_the_same_charge(counter: Any) -> None:
    told(counter)
    before = counter.ledger.entries()
    with pytest.raises(BadMessage):
        counter.site.evaluate(counter.ask(round=0, base=counter.base(0.5)))
    assert counter.ledger.entries() == before


def test_training_and_evaluation_fit_into_the_plans_budget(counter: Any) -> None:
    for number in (1, 2):
        asked = counter.ask(round=number, base=counter.base(0.01 * (number - 1)))
        assert counter.code(counter.site.train(asked)) == "ok"
    told(counter)
    plan, ledger = counter.lab.plan, counter.ledger
    planned = schedule(plan, plan.site("s0"), counter.site.spec, plan.rounds.count)
    assert ledger.epsilon() == pytest.approx(epsilon_of(planned, plan.privacy.delta))
    assert 0.99 * ledger.budget.epsilon < ledger.epsilon() <= ledger.budget.epsilon
    with pytest.raises(BadMessage):  # a second evaluation is not in the plan
        counter.site.evaluate(counter.ask(round=0, attempt=2))
    assert ledger.epsilon() <= ledger.budget.epsilon


def test_rounds_that_are_asked_again_leave_the_evaluation_affordable(counter: Any) -> None:
    """Another attempt costs another step; it may not eat what the plan keeps for the counts."""
    for attempt in range(1, 9):
        counter.code(counter.site.train(counter.ask(attempt=attempt)))
    told(counter)
    assert counter.ledger.epsilon() <= counter.ledger.budget.epsilon


def test_no_curve_of_exact_metrics(counter: Any) -> None:
    reply = counter.site.train(counter.ask(evaluate=True))
    assert Update.open(reply, counter.public).metrics == {}


@pytest.mark.parametrize("change", [{"metrics": ("auc",)}, {"max_steps": 1}])
def test_the_policy_has_the_last_word(counter: Any, change: dict[str, Any]) -> None:
    counter.site._policy = replace(counter.site._policy, **change)
    with pytest.raises(BadMessage):
        told(counter)
    assert counter.kinds == ["genesis"]


def test_without_privacy_a_private_part_tells_nothing(make_counter: Make, make_plan: Make) -> None:
    off = make_counter(make_plan(1, privacy={"enabled": False}, evaluation={"origin": "private"}))
    with pytest.raises(BadMessage):
        told(off)


def test_the_noise_is_as_wide_as_accounted(make_counter: Make, make_plan: Make) -> None:
    """Over many jobs: the spread of the told counts is the mechanism's, whatever the truth."""
    plan = make_plan(1, rounds=1, evaluation={"origin": "private"})
    counter = make_counter(plan)
    site = counter.site._counts
    right = counter.site._trainer.right_answers(counter.base(), site.data)
    rows = []
    for number in range(300):
        stream = counter.site._noise.stream(site="s0", round=0, step=number)
        rows.append(_draw(site.spec, right, stream))
    residual = (np.array(rows) - [right.sum(), len(right)]) / site.spec.noise_std
    assert abs(residual.var() - 1) < 5 * (2 / residual.size) ** 0.5


def _draw(spec: Any, right: Any, stream: Any) -> list[float]:
    from collegium.privacy.counts import noised_counts
    from collegium.privacy.units import Units

    return list(noised_counts(spec, right, Units.singles(len(right)), stream).values())


def test_a_coordinator_that_does_not_say_what_it_has_seen_is_told_nothing(counter: Any) -> None:
    """A ledger that was restored without its anchor would answer a second time."""
    assert counter.code(counter.site.train(counter.ask())) == "ok"
    before = counter.ledger.entries()
    with pytest.raises(BadMessage, match="ledger"):
        counter.site.evaluate(counter.ask(round=0, site_ledger_head=""))
    assert counter.ledger.entries() == before
