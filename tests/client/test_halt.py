"""A stale job ends by itself, a cancelled one for good; neither is charged twice."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.client import train
from collegium.client.halt import Brake, Halt
from collegium.core.messages import BadMessage, Hello, Update

Make = Callable[..., Any]


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> list[int]:
    """Do ``act`` while the ``number``-th private step is taken; return the list of steps."""
    steps: list[int] = []
    step = train.private_gradient

    def counted(*arguments: Any, **options: Any) -> Any:
        steps.append(options["step"])
        if len(steps) == number:
            act()
        return step(*arguments, **options)

    monkeypatch.setattr(train, "private_gradient", counted)
    return steps


def test_a_stale_job_ends_between_two_steps_and_goes_on_under_its_charge(
    make_counter: Make, make_plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = make_counter(make_plan(2, local_steps=5))
    clock = [1000.0]
    counter.site._now = lambda: clock[0]
    steps = at_step(monkeypatch, 2, lambda: clock.__setitem__(0, 2000.0))
    assert counter.code(counter.site.train(counter.ask(deadline=1500.0))) == "deadline"
    assert steps == [0, 1]
    assert counter.kinds == ["genesis", "reserve"]
    assert not list((counter.lab.folder / "sites" / "s0" / "spool").iterdir())
    assert counter.code(counter.site.train(counter.ask(deadline=9000.0))) == "ok"
    assert counter.kinds == ["genesis", "reserve", "commit"]
    assert counter.ledger.spend() == [(counter.site.spec, counter.site.spec.steps)]


def test_the_coordinator_s_deadline_is_no_stopwatch(
    make_counter: Make, make_plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short one, asked again and again, would tell after how many steps the records took it."""
    counter = make_counter(make_plan(2, local_steps=5, deadline_s=30.0))
    clock = [1000.0]
    counter.site._now = lambda: clock[0]
    steps = at_step(monkeypatch, 2, lambda: clock.__setitem__(0, 1020.0))
    assert counter.code(counter.site.train(counter.ask(deadline=1001.0))) == "ok"
    assert steps == [0, 1, 2, 3, 4]


def test_a_finished_but_late_training_is_kept_for_the_next_invitation(
    make_counter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that is always a second late would otherwise never answer."""
    counter = make_counter()
    clock = [1000.0]
    counter.site._now = lambda: clock[0]
    steps = at_step(monkeypatch, 1, lambda: clock.__setitem__(0, 2000.0))
    late = counter.site.train(counter.ask(deadline=1500.0))
    assert counter.site.train(counter.ask(deadline=9000.0)) == late
    assert len(steps) == 1


def test_a_failed_training_is_given_up_and_never_drawn_again(
    make_counter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have failed because of its records: a second draw would be a chosen one."""
    counter = make_counter()
    with monkeypatch.context() as patch:
        patch.setattr(train, "private_gradient", _fail)
        assert counter.code(counter.site.train(counter.ask())) == "internal"
    assert counter.kinds == ["genesis", "reserve", "abort"]
    steps = at_step(monkeypatch, 0, lambda: None)
    assert counter.code(counter.site.train(counter.ask())) == "internal"
    assert steps == [] and counter.kinds == ["genesis", "reserve", "abort"]
    again = counter.ask(attempt=2, site_ledger_head=counter.ledger.head)
    assert counter.code(counter.site.train(again)) == "ok"  # charged anew
    assert counter.kinds == ["genesis", "reserve", "abort", "reserve", "commit"]


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("out of memory")


def test_cancel_ends_what_runs_and_every_later_question_of_that_job(
    make_counter: Make, make_plan: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = make_counter(make_plan(2, local_steps=50))
    begun, told = threading.Event(), threading.Event()

    def meanwhile() -> None:
        begun.set()
        told.wait(20)

    steps = at_step(monkeypatch, 2, meanwhile)
    replies: list[Any] = []
    worker = threading.Thread(
        target=lambda: replies.append(counter.site.train(counter.ask())), daemon=True
    )
    worker.start()
    assert begun.wait(20)
    canceller = threading.Thread(target=lambda: counter.site.cancel("0" * 32), daemon=True)
    canceller.start()
    while not counter.site.brake.cancelled:
        threading.Event().wait(0.01)
    told.set()
    worker.join(20)
    canceller.join(20)
    assert counter.code(replies[0]) == "cancelled"
    assert len(steps) == 2
    assert counter.kinds == ["genesis", "reserve", "abort"]
    assert counter.code(counter.site.train(counter.ask())) == "cancelled"
    with pytest.raises(BadMessage):
        counter.site.evaluate(counter.ask(round=0))
    other = counter.ask(job="1" * 32)
    assert counter.code(counter.site.train(other)) in ("ok", "budget")


def test_a_paused_site_says_who_it_is_and_nothing_else(make_counter: Make) -> None:
    counter = make_counter()
    counter.site.brake.paused = True
    assert counter.code(counter.site.train(counter.ask())) == "cancelled"
    assert counter.kinds == ["genesis"]
    question = Hello(job="2" * 32, site="", plan="", nonce="n", ledger_head="")
    assert Hello.open(counter.site.hello(question.seal(counter.key)), counter.public).site == "s0"
    counter.site.brake.paused = False
    assert counter.code(counter.site.train(counter.ask())) == "ok"


def test_hello_is_answered_while_a_training_runs(
    make_counter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = make_counter()
    begun, go_on = threading.Event(), threading.Event()

    def meanwhile() -> None:
        begun.set()
        go_on.wait(20)

    at_step(monkeypatch, 1, meanwhile)
    replies: list[Any] = []
    worker = threading.Thread(
        target=lambda: replies.append(counter.site.train(counter.ask())), daemon=True
    )
    worker.start()
    assert begun.wait(20) and counter.site.busy
    question = Hello(job="2" * 32, site="", plan="", nonce="n", ledger_head="")
    answer = Hello.open(counter.site.hello(question.seal(counter.key)), counter.public)
    go_on.set()
    worker.join(20)
    assert answer.nonce == "n" and not counter.site.busy
    Update.open(replies[0], counter.public)


def test_cancelled_jobs_outlive_the_process(tmp_path: Path) -> None:
    brake = Brake(tmp_path / "cancelled")
    brake.cancel("b")
    brake.cancel("a")
    again = Brake(tmp_path / "cancelled")
    assert again.cancelled == {"a", "b"}
    assert (tmp_path / "cancelled").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Halt):
        again.check("a")
    again.check("c")
