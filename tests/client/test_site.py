"""The site's word is last: what it refuses unspent, what it repeats, what it never says."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.core.codec import codec
from collegium.core.digest import sha256_hex
from collegium.core.messages import (
    DECLINE_CODES,
    BadMessage,
    Hello,
    Invitation,
    Report,
    Sealed,
    Update,
)
from collegium.core.signing import generate_key

Make = Callable[..., Any]
CANARY = "canary-patient-4711"


def test_an_honest_round(make_counter: Make) -> None:
    counter = make_counter()
    reply = counter.site.train(counter.ask())
    update = Update.open(reply, counter.public)
    assert (update.round, update.attempt, update.codec) == (1, 1, "float32")
    assert update.metrics == {}
    assert update.ledger_head == counter.ledger.entries()[1].hash  # the reserve that paid for it
    vector = codec("float32").decode(reply.payload, counter.layout.size)
    assert np.isfinite(vector).all()
    assert counter.kinds == ["genesis", "reserve", "commit"]
    assert counter.ledger.entries()[2].update_sha256 == sha256_hex(reply.header, reply.payload)


REFUSED_BEFORE_THE_RESERVE: dict[str, tuple[str, Callable[[Any], Sealed]]] = {
    "another site's": ("roster", lambda c: c.ask(site="s1")),
    "another plan": ("plan", lambda c: c.ask(plan="sha256:" + "0" * 64)),
    "round 0": ("round", lambda c: c.ask(round=0)),
    "round beyond the plan": ("round", lambda c: c.ask(round=4)),
    "attempt 0": ("round", lambda c: c.ask(attempt=0)),
    "deadline": ("deadline", lambda c: c.ask(deadline=time.time() - 1)),
    "layout": ("layout", lambda c: c.ask(layout="sha256:" + "0" * 64)),
    "too short": ("shape", lambda c: c.ask(base=c.base()[:-1])),
    "too long": ("shape", lambda c: c.ask(base=np.append(c.base(), np.float32(0)))),
    "other bytes": ("base", lambda c: c.ask(base_sha256="sha256:" + "0" * 64)),
    "round 1 not from the pinned model": ("base", lambda c: c.ask(base=c.base(0.01))),
    "not a number": ("nonfinite", lambda c: c.ask(round=2, base=c.base(float("nan")))),
    "infinite": ("nonfinite", lambda c: c.ask(round=2, base=c.base(float("inf")))),
    "too far away": ("norm", lambda c: c.ask(round=2, base=c.base(1e6))),
}


@pytest.mark.parametrize("case", REFUSED_BEFORE_THE_RESERVE)
def test_refused_before_anything_is_spent(make_counter: Make, case: str) -> None:
    code, ask = REFUSED_BEFORE_THE_RESERVE[case]
    counter = make_counter()
    before = (counter.ledger.head, counter.ledger.entries())
    assert counter.code(counter.site.train(ask(counter))) == code
    assert code in DECLINE_CODES
    assert (counter.ledger.head, counter.ledger.entries()) == before
    assert counter.code(counter.site.train(counter.ask())) == "ok"  # and it goes on


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"models": ("torchvision:resnet18",)}, "policy-model"),
        ({"plans": ("sha256:other",)}, "policy-plan"),
        ({"min_sites": 9}, "policy-sites"),
        ({"max_steps": 2}, "policy-steps"),
        ({"max_sampling_rate": 0.4}, "policy-rate"),
        ({"max_clip_norm": 0.5}, "policy-clip"),
    ],
)
def test_policy_refuses_before_anything_is_spent(
    make_counter: Make, change: dict[str, Any], code: str
) -> None:
    counter = make_counter()
    counter.site._policy = replace(counter.site._policy, **change)
    assert counter.code(counter.site.train(counter.ask())) == code
    assert counter.kinds == ["genesis"]


@pytest.mark.parametrize("verb", ["train", "evaluate", "hello"])
def test_to_a_stranger_nothing_is_answered(make_counter: Make, verb: str) -> None:
    counter = make_counter()
    answer = getattr(counter.site, verb)
    forged = counter.ask(key=generate_key())
    with pytest.raises(BadMessage):
        answer(forged)
    honest = counter.ask()
    with pytest.raises(BadMessage):
        answer(replace(honest, header=honest.header.replace(b'"round":1', b'"round":2')))
    with pytest.raises(BadMessage):
        answer(replace(honest, payload=honest.payload[:-4] + b"\1\2\3\4"))
    assert counter.kinds == ["genesis"]


def test_jobs_are_no_paths(make_counter: Make) -> None:
    """The job names the spool's file: a coordinator must not choose where a site writes."""
    counter = make_counter()
    for job in ("../../outside", "a/b", "..", "", "x" * 300, "a\0b"):
        with pytest.raises(BadMessage):
            counter.site.train(counter.ask(job=job))
    assert counter.kinds == ["genesis"]
    assert not list(counter.lab.folder.parent.glob("outside*"))


def test_a_repeated_invitation_gets_the_same_bytes_and_charges_nothing(
    make_counter: Make,
) -> None:
    counter = make_counter()
    first = counter.site.train(counter.ask())
    before = counter.ledger.entries()
    later = counter.ask(nonce="another", deadline=time.time() + 99)
    assert counter.site.train(later) == first
    assert counter.ledger.entries() == before


def test_another_base_for_the_same_attempt_is_refused(make_counter: Make) -> None:
    counter = make_counter()
    counter.site.train(counter.ask(round=2, base=counter.base(0.01)))
    before = counter.ledger.entries()
    assert counter.code(counter.site.train(counter.ask(round=2, base=counter.base(0.02)))) == (
        "base"
    )
    assert counter.ledger.entries() == before
    again = counter.ask(round=2, attempt=2, base=counter.base(0.02))
    assert counter.code(counter.site.train(again)) == "ok"  # a new attempt is charged anew
    assert counter.kinds == ["genesis", "reserve", "commit", "reserve", "commit"]


def test_a_reserve_without_a_reply_pays_for_that_base_alone(make_counter: Make) -> None:
    """Killed between reserve and spool: the same base trains again at no charge, another not."""
    counter = make_counter()

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    train, counter.site._trainer.train = counter.site._trainer.train, die
    with pytest.raises(Killed):
        counter.site.train(counter.ask(round=2, base=counter.base(0.01)))
    counter.site._trainer.train = train
    other = counter.ask(round=2, base=counter.base(0.02))
    assert counter.code(counter.site.train(other)) == "base"
    same = counter.ask(round=2, base=counter.base(0.01))
    assert counter.code(counter.site.train(same)) == "ok"
    assert counter.kinds == ["genesis", "reserve", "commit"]


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError(f"cannot read record {CANARY}")


def test_over_budget_is_declined_and_never_spent(make_counter: Make, make_plan: Make) -> None:
    """Another job asks for the same asset: the budget covers everything ever computed from it."""
    counter = make_counter(make_plan(1, rounds=2))
    for round in (1, 2):
        shift = 0.01 * (round - 1)
        assert counter.code(counter.site.train(counter.ask(round=round, base=counter.base(shift))))
    spent = counter.ledger.entries()
    assert counter.code(counter.site.train(counter.ask(job="1" * 32))) == "policy-steps"
    counter.site._policy = replace(counter.site._policy, max_steps=100)
    assert counter.code(counter.site.train(counter.ask(job="1" * 32))) == "budget"
    assert counter.ledger.entries() == spent
    assert counter.ledger.epsilon() <= counter.ledger.budget.epsilon


def test_the_reserve_is_on_disk_before_the_first_gradient(make_counter: Make) -> None:
    counter = make_counter()
    seen: list[list[str]] = []
    train = counter.site._trainer.train

    def look(*arguments: Any, **options: Any) -> Any:
        import sqlite3

        other = sqlite3.connect(counter.ledger.path)
        rows = other.execute("SELECT body FROM entries ORDER BY seq").fetchall()
        seen.append([re.findall(r'"kind":"(\w+)"', body)[0] for (body,) in rows])
        other.close()
        return train(*arguments, **options)

    counter.site._trainer.train = look
    counter.site.train(counter.ask())
    assert seen == [["genesis", "reserve"]]


def test_no_word_of_a_failure_leaves(
    make_counter: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counter = make_counter()
    for name in ("train", "evaluate"):
        monkeypatch.setattr(counter.site._trainer, name, _fail)
    reply = counter.site.train(counter.ask(evaluate=True))
    assert counter.code(reply) == "internal"
    assert CANARY.encode() not in reply.header + reply.payload
    assert CANARY in caplog.text  # the site's own log is where to look


def test_an_update_that_may_not_leave_does_not(
    make_counter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = make_counter()
    for vector in (
        np.full(8, np.nan, dtype=np.float32),
        np.full(8, 1e9, dtype=np.float32),
        np.zeros(9, dtype=np.float32),
        np.zeros(8),
    ):
        monkeypatch.setattr(counter.site._trainer, "train", lambda *_, v=vector, **__: v)
        assert counter.code(counter.site.train(counter.ask())) == "internal"
    assert list((counter.lab.folder / "sites" / "s0" / "spool").iterdir()) == []


def test_two_requests_at_once_are_one_training(make_counter: Make) -> None:
    """Two answers to one invitation would be two draws of noise under one charge."""
    counter = make_counter()
    calls: list[int] = []
    train = counter.site._trainer.train

    def slow(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        time.sleep(0.2)
        return train(*arguments, **options)

    counter.site._trainer.train = slow
    ask, replies = counter.ask(), []
    threads = [
        threading.Thread(target=lambda: replies.append(counter.site.train(ask))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert replies[0] == replies[1] == replies[2]


# --- the other questions --------------------------------------------------------------------


def test_hello(make_counter: Make) -> None:
    counter = make_counter()
    question = Hello(job="2" * 32, site="", plan="sha256:any", nonce="abc", ledger_head="")
    answer = Hello.open(counter.site.hello(question.seal(counter.key)), counter.public)
    assert (answer.job, answer.site, answer.nonce) == ("2" * 32, "s0", "abc")
    assert answer.plan == counter.lab.plan.digest
    assert answer.ledger_head == counter.ledger.head


def test_metrics_of_the_public_test_part(make_counter: Make) -> None:
    counter = make_counter()
    report = Report.open(counter.site.evaluate(counter.ask(round=0)), counter.public)
    assert (
        report.model_sha256 == Invitation.open(counter.ask(), counter.key.public_key()).base_sha256
    )
    assert 0 <= report.metrics["accuracy"] <= 1
    assert counter.kinds == ["genesis"]


@pytest.mark.parametrize(
    "change", [{"site": "s1"}, {"plan": "sha256:x"}, {"base_sha256": "sha256:x"}]
)
def test_evaluation_answers_its_own_question_alone(
    make_counter: Make, change: dict[str, Any]
) -> None:
    counter = make_counter()
    with pytest.raises(BadMessage):
        counter.site.evaluate(counter.ask(**change))


def test_evaluation_refuses_what_is_no_model(make_counter: Make) -> None:
    counter = make_counter()
    for base in (counter.base()[:3], counter.base(float("nan")), counter.base(float("inf"))):
        with pytest.raises(BadMessage):
            counter.site.evaluate(counter.ask(base=base))


@pytest.mark.parametrize(
    "change",
    [{"public_test": False}, {"models": ("hf:bert",)}, {"max_steps": 1}],
)
def test_a_plan_cannot_declare_a_sites_test_part_public(
    make_counter: Make, change: dict[str, Any]
) -> None:
    counter = make_counter()
    counter.site._policy = replace(counter.site._policy, **change)
    with pytest.raises(BadMessage):
        counter.site.evaluate(counter.ask(round=0))
    assert counter.kinds == ["genesis"]


def test_exact_metrics_need_the_sites_own_word(make_counter: Make) -> None:
    counter = make_counter()
    counter.site._policy = replace(counter.site._policy, public_test=False)
    reply = counter.site.train(counter.ask(evaluate=True))
    assert Update.open(reply, counter.public).metrics == {}


def test_an_expired_question_is_not_answered(make_counter: Make) -> None:
    counter = make_counter()
    with pytest.raises(BadMessage):
        counter.site.evaluate(counter.ask(round=0, deadline=time.time() - 1))


def test_questions_that_cost_nothing_write_nothing(make_counter: Make, make_plan: Make) -> None:
    """A coordinator cannot fill a site's disk: countersigned heads come with a charge alone."""
    counter = make_counter(make_plan(1, rounds=1))
    for number in range(12):
        head = counter.ledger.head
        counter.site.train(counter.ask(job=f"{number:032d}", site_ledger_head=head))
    kinds = [entry.kind for entry in counter.ledger.entries()]
    assert kinds.count("witness") <= kinds.count("reserve") <= 2


def test_a_coordinator_must_countersign_what_it_has_seen(make_counter: Make) -> None:
    """Without it a ledger that was rolled back together with its anchor would not be found."""
    counter = make_counter()
    assert counter.code(counter.site.train(counter.ask(site_ledger_head=""))) == "ok"
    second = counter.ask(round=2, base=counter.base(0.01), site_ledger_head="")
    assert counter.code(counter.site.train(second)) == "ledger"
    assert counter.code(counter.site.train(counter.ask(site_ledger_head=""))) == "ok"  # a repeat
    told = counter.ask(round=2, base=counter.base(0.01))
    assert counter.code(counter.site.train(told)) == "ok"
    assert [entry.kind for entry in counter.ledger.entries()].count("witness") == 1


def test_the_policy_names_the_metrics(make_counter: Make) -> None:
    counter = make_counter()
    counter.site._policy = replace(counter.site._policy, metrics=("auc",))
    report = Report.open(counter.site.evaluate(counter.ask()), counter.public)
    assert set(report.metrics) <= {"auc"}
