"""The executor with a link of our own: what is answered, what is refused, when replies leave."""

import threading
import time
from collections import deque

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from collegium.client._flwr_runtime import LinkDown
from collegium.client.executor import NOT_ANSWERED, REFUSED_APP, Executor
from collegium.simulations._flwr import become_server, context_of

SIGNED, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
CANARY = "canary-7f3a-patient-4711"


class FakeTask:
    def __init__(self, bundle: str) -> None:
        become_server()
        self.message = Message(
            RecordDict({"x": ConfigRecord()}), dst_node_id=1, message_type="train"
        )
        self.message.metadata.__dict__["_message_id"] = "m1"
        self.context = context_of(1, 0, 1)
        self.bundle_sha256 = bundle
        self.replies: list[Message] = []
        self.refusals: list[str] = []
        self.dropped = False

    def reply(self, message: Message) -> None:
        self.replies.append(message)

    def refuse(self, reason: str) -> None:
        self.refusals.append(reason)

    def drop(self) -> None:
        self.dropped = True


class FakeLink:
    def __init__(self, *tasks: FakeTask | Exception | None) -> None:
        self.tasks = deque(tasks)

    def next_task(self) -> FakeTask | None:
        found = self.tasks.popleft() if self.tasks else None
        if isinstance(found, Exception):
            raise found
        return found


class App:
    def __init__(self, error: BaseException | None = None) -> None:
        self.calls, self.error = 0, error

    def __call__(self, message: Message, context: Context) -> Message:
        self.calls += 1
        if self.error:
            raise self.error
        return Message(RecordDict(), reply_to=message)


def run_once(task: FakeTask, app: App, grid_s: float = 0.0) -> bool:
    executor = Executor(FakeLink(task), app, apps=[SIGNED], grid_s=grid_s)
    return executor.step(threading.Event())


def test_a_signed_bundle_is_answered_by_the_installed_app() -> None:
    task, app = FakeTask(SIGNED), App()
    assert run_once(task, app)
    assert (app.calls, len(task.replies), task.refusals) == (1, 1, [])


def test_any_other_bundle_is_refused_before_the_app_is_called() -> None:
    task, app = FakeTask(OTHER), App()
    assert run_once(task, app)
    assert (app.calls, task.replies, task.refusals) == (0, [], [REFUSED_APP])


def test_an_exception_text_stays_at_the_site() -> None:
    task = FakeTask(SIGNED)
    assert run_once(task, App(ValueError(CANARY)))
    assert task.refusals == [NOT_ANSWERED]
    assert CANARY not in NOT_ANSWERED


def test_an_interrupted_answer_drops_the_task() -> None:
    task = FakeTask(SIGNED)
    with pytest.raises(KeyboardInterrupt):
        run_once(task, App(KeyboardInterrupt()))
    assert task.dropped and not task.replies and not task.refusals


def test_replies_leave_on_the_grid() -> None:
    task = FakeTask(SIGNED)
    began = time.monotonic()
    run_once(task, App(), grid_s=0.2)
    assert time.monotonic() - began >= 0.2


def test_a_reply_is_dated_when_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower dates a message when it is made: that would tell how long the records took."""
    from collegium.client import _flwr_runtime

    task = FakeTask(SIGNED)
    reply = Message(RecordDict(), reply_to=task.message)
    made = reply.metadata.created_at
    monkeypatch.setattr(_flwr_runtime.time, "time", lambda: made + 5.0)
    _flwr_runtime._stamp_as_leaving(reply, task.message)
    assert reply.metadata.created_at == made + 5.0
    rest = task.message.metadata.ttl - (made + 5.0 - task.message.metadata.created_at)
    assert reply.metadata.ttl == pytest.approx(rest)


def test_a_stop_does_not_wait_for_the_grid() -> None:
    stop = threading.Event()
    stop.set()
    task = FakeTask(SIGNED)
    executor = Executor(FakeLink(task), App(), apps=[SIGNED], grid_s=3600.0)
    assert executor.step(stop)
    assert len(task.replies) == 1


def test_no_task_is_no_answer() -> None:
    assert not Executor(FakeLink(), App(), apps=[SIGNED], grid_s=0.0).step(threading.Event())


def test_a_supernode_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collegium.client.executor._DOWN_S", 0.001)
    stop = threading.Event()
    task = FakeTask(SIGNED)

    class Last(FakeTask):
        def reply(self, message: Message) -> None:
            super().reply(message)
            stop.set()

    last = Last(SIGNED)
    link = FakeLink(LinkDown("ConnectError"), LinkDown("ConnectError"), task, None, last)
    Executor(link, App(), apps=[SIGNED], grid_s=0.0).run(stop)
    assert len(task.replies) == len(last.replies) == 1


def test_whatever_goes_wrong_in_sending_is_told_as_link_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flower raises kinds of its own, too: the executor's thread must outlive them."""
    from collegium.client import _flwr_runtime

    class Closed:
        is_running = False

        def close(self) -> None:
            pass

    def fail(*_: object) -> None:
        raise LookupError("one of Flower's own")

    question = FakeTask(SIGNED)
    task = _flwr_runtime.Task.__new__(_flwr_runtime.Task)
    task.message, task.context = question.message, question.context
    task._client, task._heart = Closed(), Closed()  # type: ignore[assignment]
    monkeypatch.setattr(_flwr_runtime, "push_message", fail)
    with pytest.raises(LinkDown):
        task.reply(Message(RecordDict(), reply_to=question.message))
