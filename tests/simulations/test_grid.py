"""The in-process Grid: each message once, one at a time per node, whatever the apps do."""

import threading
import time
from collections import defaultdict
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from collegium.simulations.faults import CANARY, raising
from collegium.simulations.grid import LocalGrid


def question(node: int, number: int = 0) -> Message:
    return Message(
        RecordDict({"n": ConfigRecord({"number": number})}), dst_node_id=node, message_type="train"
    )


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


def number_of(message: Message) -> int:
    return int(message.content.config_records["n"]["number"])  # type: ignore[arg-type]


def pull_all(grid: LocalGrid, ids: set[str], *, seconds: float = 20.0) -> list[Message]:
    found: list[Message] = []
    until = time.monotonic() + seconds
    while ids and time.monotonic() < until:
        for reply in grid.pull_messages(ids):
            ids.discard(reply.metadata.reply_to_message_id)
            found.append(reply)
    return found


def test_each_question_gets_its_own_answer_once() -> None:
    with LocalGrid([echo] * 5, workers=3) as grid:
        nodes = list(grid.get_node_ids())
        assert len(nodes) == len(set(nodes)) == 5
        asked = {}
        for number in range(60):
            (message_id,) = grid.push_messages([question(nodes[number % 5], number)])
            asked[message_id] = number
        assert len(asked) == 60
        replies = pull_all(grid, set(asked))
        assert len(replies) == 60
        for reply in replies:
            assert asked[reply.metadata.reply_to_message_id] == number_of(reply)
        assert list(grid.pull_messages(asked)) == []  # nothing is delivered twice


def test_one_node_handles_one_message_at_a_time_and_in_order() -> None:
    lock, busy, order = threading.Lock(), defaultdict(int), defaultdict(list)

    def careful(message: Message, context: Context) -> Message:
        with lock:
            busy[context.node_id] += 1
            assert busy[context.node_id] == 1
        time.sleep(0.002)
        with lock:
            busy[context.node_id] -= 1
            order[context.node_id].append(number_of(message))
        return echo(message, context)

    with LocalGrid([careful] * 3, workers=8) as grid:
        nodes = list(grid.get_node_ids())
        ids = {
            message_id
            for number in range(30)
            for message_id in grid.push_messages([question(nodes[number % 3], number)])
        }
        assert not [reply for reply in pull_all(grid, ids) if reply.has_error()]
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert sum(map(len, order.values())) == 30


def test_nodes_run_beside_each_other() -> None:
    """Four apps that wait for each other would never end on one worker."""
    barrier = threading.Barrier(4)

    def meet(message: Message, context: Context) -> Message:
        barrier.wait(10)
        return echo(message, context)

    with LocalGrid([meet] * 4, workers=4) as grid:
        ids = {i for node in grid.get_node_ids() for i in grid.push_messages([question(node)])}
        assert not [reply for reply in pull_all(grid, ids) if reply.has_error()]


def test_pushing_from_many_threads() -> None:
    with LocalGrid([echo] * 4, workers=4) as grid:
        nodes, found, lock = list(grid.get_node_ids()), [], threading.Lock()

        def work(start: int) -> None:
            mine = {}
            for number in range(start, start + 40):
                (message_id,) = grid.push_messages([question(nodes[number % 4], number)])
                mine[message_id] = number
            replies = pull_all(grid, set(mine))
            with lock:
                found.extend(
                    mine[reply.metadata.reply_to_message_id] == number_of(reply)
                    for reply in replies
                )

        threads = [threading.Thread(target=work, args=(1000 * i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 200


def wrong_type(message: Message, context: Context) -> Any:
    return {"not": "a message"}


def exits(message: Message, context: Context) -> Message:
    raise SystemExit(3)


@pytest.mark.parametrize("app", [raising(echo), wrong_type, exits])
def test_a_broken_app_is_an_error_with_a_fixed_text_and_goes_on(app: Any) -> None:
    calls: list[int] = []

    def second_time_lucky(message: Message, context: Context) -> Message:
        calls.append(1)
        return app(message, context) if len(calls) == 1 else echo(message, context)

    with LocalGrid([second_time_lucky]) as grid:
        (node,) = grid.get_node_ids()
        ids = {i for n in range(2) for i in grid.push_messages([question(node, n)])}
        replies = pull_all(grid, ids, seconds=5.0)
    first, second = sorted(replies, key=lambda reply: reply.has_content())
    assert first.has_error()
    assert first.error.code == 2
    assert CANARY not in str(first.error.reason)
    assert number_of(second) == 1


def test_an_answer_to_another_question_is_an_answer_to_none() -> None:
    """An app chooses what its reply says; the Grid knows which message it was called with."""

    def confused(message: Message, context: Context) -> Message:
        reply = echo(message, context)
        reply.metadata.__dict__["_reply_to_message_id"] = "local-999"
        return reply

    with LocalGrid([confused]) as grid:
        (node,) = grid.get_node_ids()
        (message_id,) = grid.push_messages([question(node)])
        (reply,) = pull_all(grid, {message_id}, seconds=3.0)
    assert reply.metadata.reply_to_message_id == message_id


def test_contexts_belong_to_their_node() -> None:
    def count(message: Message, context: Context) -> Message:
        seen = int(context.state.config_records.get("n", ConfigRecord({"c": 0}))["c"]) + 1  # type: ignore[arg-type]
        context.state["n"] = ConfigRecord({"c": seen})
        return Message(RecordDict({"n": ConfigRecord({"number": seen})}), reply_to=message)

    with LocalGrid([count, count]) as grid:
        first, second = grid.get_node_ids()
        replies = list(grid.send_and_receive([question(first), question(first), question(second)]))
    assert sorted(number_of(reply) for reply in replies) == [1, 1, 2]


def test_send_and_receive_gives_up_at_its_timeout() -> None:
    awake = threading.Event()

    def sleepy(message: Message, context: Context) -> Message:
        awake.wait()
        return echo(message, context)

    with LocalGrid([sleepy, echo], workers=2) as grid:
        slow_node, node = grid.get_node_ids()
        replies = list(grid.send_and_receive([question(slow_node), question(node)], timeout=0.3))
        awake.set()
    assert len(replies) == 1


def test_closing_with_work_in_the_queue() -> None:
    started = threading.Event()

    def slow(message: Message, context: Context) -> Message:
        started.set()
        time.sleep(0.05)
        return echo(message, context)

    grid = LocalGrid([slow])
    (node,) = grid.get_node_ids()
    grid.push_messages([question(node, n) for n in range(50)])
    started.wait()
    grid.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("site")]


def test_workers_are_prepared_and_bounded() -> None:
    prepared: list[str] = []
    with LocalGrid(
        [echo] * 3, workers=8, prepare=lambda: prepared.append(threading.current_thread().name)
    ) as grid:
        list(grid.send_and_receive([question(node) for node in grid.get_node_ids()]))
    assert 1 <= len(prepared) <= 3
    assert len(set(prepared)) == len(prepared)
