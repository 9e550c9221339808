"""What a job may ask once: charged first, answered once, repeated byte for byte, never more."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.client.survey import exact_sums, survey_mechanisms
from collegium.client.train import Trainer
from collegium.core.mechanism import spec_digest
from collegium.core.messages import (
    CALIBRATION,
    EVALUATION,
    ONCE,
    STATISTICS,
    BadMessage,
    Decline,
    Sealed,
    Survey,
    Update,
)
from collegium.core.plan import Plan
from collegium.core.plan_fitting import Calibration, Statistics
from collegium.data.site_data import SiteData
from collegium.models import registry
from collegium.models.fitted import SCALE, TEMPERATURE
from collegium.privacy.accountant import epsilon_of
from collegium.privacy.derive import questions, schedule

Make = Callable[..., Any]
NOTHING = np.zeros(0, dtype=np.float32)


def fitting(plan: Plan, **changes: Any) -> Plan:
    """The plan with common statistics and calibration."""
    wanted = {"statistics": Statistics(share=0.3), "calibration": Calibration(bins=8)}
    return replace(plan, **(wanted | changes))


@pytest.fixture
def counter(make_counter: Make, make_plan: Make) -> Any:
    """A site that may be asked both questions."""
    return make_counter(fitting(make_plan(2, rounds=2)))


def ask(counter: Any, question: int = STATISTICS, **changes: Any) -> Sealed:
    base = {"base": NOTHING} if question == STATISTICS else {}
    return counter.site.evaluate(counter.ask(round=ONCE, attempt=question, **base | changes))


def told(counter: Any, question: int = STATISTICS, **changes: Any) -> tuple[Survey, Any]:
    reply = ask(counter, question, **changes)
    return Survey.open(reply, counter.public), np.frombuffer(reply.payload, dtype="<f4")


@pytest.mark.parametrize(("question", "size"), [(STATISTICS, 7), (CALIBRATION, 16)])
def test_sums_leave_noised_and_charged(counter: Any, question: int, size: int) -> None:
    survey, sums = told(counter, question)
    spec = questions(counter.lab.plan, counter.lab.plan.site("s0"))[question]
    assert (survey.attempt, survey.spec, sums.shape) == (question, spec_digest(spec), (size,))
    assert counter.kinds == ["genesis", "reserve", "commit"]
    reserve = counter.ledger.entries()[1]
    assert (reserve.round, reserve.attempt, reserve.spec) == (ONCE, question, spec)
    site = counter.site
    exact = exact_sums(
        counter.lab.plan, question, spec, site.records, trainer=site._trainer, vector=counter.base()
    )
    assert not np.any(sums == exact.astype(np.float32))  # what is true never leaves
    assert np.abs(sums - exact).max() < 8 * spec.noise_std


@pytest.mark.parametrize("question", [STATISTICS, CALIBRATION])
def test_the_same_question_gets_the_same_bytes(counter: Any, question: int) -> None:
    first = ask(counter, question)
    before = counter.ledger.entries()
    assert ask(counter, question, nonce="another") == first
    assert counter.ledger.entries() == before


def test_the_charge_is_on_disk_before_the_sums_are_computed(
    counter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def looked(*_: Any, **__: Any) -> Any:
        seen.append(counter.kinds)
        raise MemoryError

    monkeypatch.setattr("collegium.client.survey.exact_sums", looked)
    assert Decline.open(ask(counter), counter.public).code == "internal"
    assert seen == [["genesis", "reserve"]]
    monkeypatch.undo()
    told(counter)  # nothing had left: the same charge pays for the answer
    assert counter.kinds == ["genesis", "reserve", "commit"]


@pytest.mark.parametrize("question", [STATISTICS, CALIBRATION, 4, 0, -1])
def test_what_is_not_in_the_plan_is_not_answered(
    make_counter: Make, make_plan: Make, question: int
) -> None:
    counter = make_counter(make_plan(2))
    with pytest.raises(BadMessage):
        counter.site.evaluate(counter.ask(round=ONCE, attempt=question))
    with pytest.raises(BadMessage):
        ask(counter, question)
    assert counter.kinds == ["genesis"]


def test_statistics_are_of_no_model(counter: Any) -> None:
    for lie in ({"base": counter.base()}, {"base_sha256": "sha256:" + "1" * 64}):
        assert Decline.open(ask(counter, **lie), counter.public).code == "base"
    assert counter.kinds == ["genesis"]


def test_scores_of_another_model_are_not_told_for_the_same_charge(counter: Any) -> None:
    told(counter, CALIBRATION)
    before = counter.ledger.entries()
    moved = counter.base()
    moved[0] += 0.5
    assert Decline.open(ask(counter, CALIBRATION, base=moved), counter.public).code == "base"
    assert counter.ledger.entries() == before


@pytest.mark.parametrize("question", [CALIBRATION, EVALUATION])
def test_a_charge_whose_answer_was_never_made_is_of_one_model_too(
    make_counter: Make, make_plan: Make, monkeypatch: pytest.MonkeyPatch, question: int
) -> None:
    """The site died between the two: what it finds in its ledger says which model was asked."""
    counter = make_counter(fitting(make_plan(2, rounds=2, evaluation={"origin": "private"})))

    def dies(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr("collegium.client.spool.Spool.put", dies)
    with pytest.raises(SystemExit):
        ask(counter, question)
    monkeypatch.undo()
    assert counter.kinds == ["genesis", "reserve"]
    moved = counter.base()
    moved[0] += 0.5
    if question == EVALUATION:
        with pytest.raises(BadMessage):
            ask(counter, question, base=moved)
    else:
        assert Decline.open(ask(counter, question, base=moved), counter.public).code == "base"
    assert counter.kinds == ["genesis", "reserve"]
    ask(counter, question)  # the model that was charged for gets its answer
    assert counter.kinds == ["genesis", "reserve", "commit"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"plan": "sha256:" + "1" * 64}, "plan"),
        ({"site": "s1"}, "roster"),
        ({"deadline": 1.0}, "deadline"),
        ({"site_ledger_head": "sha256:" + "3" * 64}, "ledger"),
    ],
)
def test_lies_are_declined_unspent(counter: Any, changes: dict[str, Any], code: str) -> None:
    for question in (STATISTICS, CALIBRATION):
        assert Decline.open(ask(counter, question, **changes), counter.public).code == code
    assert counter.kinds == ["genesis"]


def test_the_policy_and_the_sites_people_have_the_last_word(counter: Any) -> None:
    counter.site._policy = replace(counter.site._policy, max_steps=1)
    assert Decline.open(ask(counter), counter.public).code == "policy-steps"
    counter.site._policy = replace(counter.site._policy, max_steps=2)
    counter.site.brake.paused = True
    assert Decline.open(ask(counter), counter.public).code == "cancelled"
    assert counter.kinds == ["genesis"]


def set_to(counter: Any, name: str, value: float) -> Any:
    """The open model with one fitted constant replaced."""
    base, fitted = counter.base(), counter.site._trainer.fitted
    fitted.split(base[counter.layout.size :])[name][...] = value
    return base


@pytest.mark.parametrize(
    ("value", "code"), [(0.0, "base"), (float("nan"), "nonfinite"), (2.0, "base")]
)
def test_constants_that_statistics_cannot_give_are_declined(
    counter: Any, value: float, code: str
) -> None:
    base = set_to(counter, SCALE, value)
    for number in (1, 2):
        assert counter.code(counter.site.train(counter.ask(round=number, base=base))) == code
    assert Decline.open(ask(counter, CALIBRATION, base=base), counter.public).code == code
    with pytest.raises(BadMessage, match=code):
        counter.site.evaluate(counter.ask(round=ONCE, base=base))
    assert counter.kinds == ["genesis"]


def test_no_temperature_while_it_trains_but_one_in_the_end(counter: Any) -> None:
    warm = set_to(counter, TEMPERATURE, 2.0)
    assert counter.code(counter.site.train(counter.ask(base=warm))) == "base"
    assert Decline.open(ask(counter, CALIBRATION, base=warm), counter.public).code == "base"
    counter.site.evaluate(counter.ask(round=ONCE, attempt=EVALUATION, base=warm))


def test_the_first_round_may_have_any_statistics_but_no_other_model(counter: Any) -> None:
    base = set_to(counter, SCALE, 0.5)
    moved = base.copy()
    moved[0] += 0.5
    assert counter.code(counter.site.train(counter.ask(base=moved))) == "base"
    reply = counter.site.train(counter.ask(base=base))
    update = Update.open(reply, counter.public)
    assert update.layout == counter.layout.digest
    assert len(reply.payload) == 4 * counter.layout.size  # of the constants nothing leaves
    assert len(base) == counter.layout.size + 6 + 3


def test_the_constants_are_part_of_what_is_trained(counter: Any) -> None:
    """The same update under other constants would be no update of this model."""
    site, spec = counter.site, replace(counter.site.spec, noise_multiplier=0.0)
    vectors = [
        site._trainer.train(base, site.records, spec, site._noise, site="s0", round=1)
        for base in (counter.base(), set_to(counter, SCALE, 0.5))
    ]
    assert not np.allclose(*vectors)


def test_everything_fits_into_the_plans_budget(make_counter: Make, make_plan: Make) -> None:
    plan = fitting(make_plan(2, rounds=2, evaluation={"origin": "private"}))
    counter = make_counter(plan)
    told(counter)
    for number in (1, 2):
        base = counter.base()
        base[: counter.layout.size] += np.float32(0.01 * (number - 1))
        assert counter.code(counter.site.train(counter.ask(round=number, base=base))) == "ok"
    told(counter, CALIBRATION)
    counter.site.evaluate(counter.ask(round=ONCE, attempt=EVALUATION))
    planned = schedule(plan, plan.site("s0"), counter.site.spec, plan.rounds.count)
    ledger = counter.ledger
    assert len(planned) == 4
    assert ledger.epsilon() == pytest.approx(epsilon_of(planned, plan.privacy.delta))
    assert 0.99 * ledger.budget.epsilon < ledger.epsilon() <= ledger.budget.epsilon


def test_rounds_that_are_asked_again_leave_the_questions_affordable(counter: Any) -> None:
    counter.site._policy = replace(counter.site._policy, max_steps=100)
    codes = {counter.code(counter.site.train(counter.ask(attempt=n))) for n in range(1, 30)}
    assert codes == {"ok", "budget"}
    told(counter)
    told(counter, CALIBRATION)
    assert counter.ledger.epsilon() <= counter.ledger.budget.epsilon


def test_bytes_that_are_gone_are_not_drawn_again(counter: Any) -> None:
    ask(counter)
    for path in (counter.lab.folder / "sites" / "s0" / "spool").iterdir():
        path.unlink()
    before = counter.ledger.entries()
    assert Decline.open(ask(counter), counter.public).code == "internal"
    assert counter.ledger.entries() == before


def test_without_privacy_the_sums_are_exact_and_cost_nothing(
    make_counter: Make, make_plan: Make
) -> None:
    counter = make_counter(fitting(make_plan(1, privacy={"enabled": False})))
    _, sums = told(counter)
    x = counter.site.records.train_x.astype(np.float64)
    wanted = [len(x), *x.sum(axis=0), *(1 - x * x).sum(axis=0)]
    np.testing.assert_allclose(sums, wanted, rtol=1e-6)
    assert counter.kinds == ["genesis"]


def test_scores_are_of_the_records_held_out_for_them(make_counter: Make, make_plan: Make) -> None:
    plan = fitting(make_plan(1, privacy={"enabled": False}))
    counter = make_counter(plan)
    assert told(counter, CALIBRATION)[1].sum() == 24
    records = counter.site.records
    held = replace(records, calibration_x=records.test_x, calibration_y=records.test_y)
    exact = exact_sums(
        plan,
        CALIBRATION,
        counter.site._surveys.specs[CALIBRATION],
        held,
        trainer=counter.site._trainer,
        vector=counter.base(),
    )
    by_class = exact.reshape(2, 8).sum(axis=1)
    assert by_class.tolist() == np.bincount(records.test_y, minlength=2).tolist()


def test_a_patients_records_count_as_one(make_plan: Make) -> None:
    plan = make_plan(1, privacy={"enabled": False, "unit": "patient"})
    wanted = fitting(plan)
    x = np.tile(np.float32([[0.5, 0.5, 0.5]]), (5, 1))
    y = np.array([0, 0, 0, 1, 1])
    owners = np.array([1, 1, 1, 1, 2])
    data = SiteData(asset="a", train_x=x, train_y=y, test_x=x[:0], test_y=y[:0], train_units=owners)
    trainer = Trainer(registry.build(plan.model), wanted)
    spec, vector = survey_mechanisms(wanted, "s0")[CALIBRATION], trainer.open_vector
    sums = exact_sums(wanted, CALIBRATION, spec, data, trainer=trainer, vector=vector)
    assert sums.reshape(2, 8).sum(axis=1).tolist() == [0.75, 1.25]


def test_a_real_site_draws_once_also_when_it_was_restarted(
    make_town: Make, make_plan: Make
) -> None:
    """Its noise is the operating system's: a second draw could not be the same bytes."""
    town = make_town(fitting(make_plan(2)))
    town.approve()
    site = town.open()
    try:
        asked = {"round": ONCE, "attempt": STATISTICS, "base": NOTHING}
        first = site.evaluate(town.ask(site, **asked))
        assert Survey.open(first, site.public_key).attempt == STATISTICS
        assert site.evaluate(town.ask(site, **asked, nonce="another")) == first
        head = site.ledger.head
    finally:
        site.ledger.close()
    again = town.open()
    try:
        assert again.evaluate(town.ask(again, **asked, nonce="once more")) == first
        assert again.ledger.head == head
        other = again.evaluate(town.ask(again, **asked, job="1" * 32))
        assert other.payload != first.payload  # another job is another charge
        assert sum(entry.kind == "reserve" for entry in again.ledger.entries()) == 2
    finally:
        again.ledger.close()
