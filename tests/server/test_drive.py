"""The drive on an in-process Grid: order, faults, second answers, and a Grid that misbehaves."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from collegium.client._flwr import pack, unpack
from collegium.client.app import make_app
from collegium.core.errors import Interrupted, Refused
from collegium.core.messages import Update
from collegium.server import rounds
from collegium.simulations.faults import CANARY, raising, silent
from collegium.simulations.grid import LocalGrid

MakePlan = Callable[..., Any]


class Order:
    """Lets sites answer in one order, each only after the one before it was taken in."""

    def __init__(self, order: tuple[int, ...]) -> None:
        self.order = [f"s{number}" for number in order]
        self.taken: list[str] = []
        self.news = threading.Condition()

    def wrap(self, name: str, app: Any) -> Any:
        def in_turn(message: Message, context: Context) -> Message:
            reply = app(message, context)
            if message.metadata.message_type == "train":
                turn = self.order.index(name)
                with self.news:
                    self.news.wait_for(lambda: len(self.taken) % len(self.order) == turn)
            return reply

        return in_turn

    def answered(self, round: int, site: str, code: str) -> None:
        with self.news:
            self.taken.append(site)
            self.news.notify_all()


def run_in_order(lab: Any, order: tuple[int, ...]) -> bytes:
    """The released bytes of a run whose sites answer in this order in every round."""
    turns = Order(order)
    vector = lab.run(turns.wrap, workers=len(order), on_answer=turns.answered)
    assert turns.taken == turns.order * len(lab.rounds)
    return vector.tobytes()


def model_of(lab: Any) -> str:
    """The digest of the last global model."""
    return lab.rounds[-1].model_sha256


@pytest.mark.slow
def test_every_order_of_arrival_gives_the_same_bits(make_lab: Any, make_plan: MakePlan) -> None:
    """Four real sites on four threads, made to answer in each of the 24 orders."""
    plan, bits = make_plan(4, rounds=2, codec="bf16"), set()
    for number, order in enumerate(itertools.permutations(range(4))):
        lab = make_lab(plan, folder=str(number))
        bits.add(run_in_order(lab, order))
        lab.close()
    assert len(bits) == 1


def test_two_orders_of_arrival(make_lab: Any, make_plan: MakePlan) -> None:
    plan = make_plan(4, rounds=2, codec="bf16")
    bits = set()
    for number, order in enumerate(((3, 2, 1, 0), (1, 3, 0, 2))):
        lab = make_lab(plan, folder=str(number))
        bits.add(run_in_order(lab, order))
        assert all(release.sites == ("s0", "s1", "s2", "s3") for release in lab.rounds)
    bits.add(make_lab(plan, folder="one").run(workers=1).tobytes())
    assert len(bits) == 1


def test_one_run_by_hand(make_lab: Any, make_plan: MakePlan) -> None:
    """What is released is base + rate * weighted mean of the kept updates, and is chained."""
    plan = make_plan(
        2, rounds=2, codec="float32", weights=(1.0, 3.0), strategy={"server_learning_rate": 2.0}
    )
    lab = make_lab(plan)
    vector = lab.run()
    base = lab.consortium.opened.astype(np.float64)
    for release in lab.rounds:
        updates = [
            np.frombuffer(lab.store.kept_payload(release.round, site), dtype="<f4")
            for site in ("s0", "s1")
        ]
        mean = (updates[0].astype(np.float64) + 3.0 * updates[1]) / 4.0
        base = (base + 2.0 * mean).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(vector, base, rtol=1e-6)
    first, second = lab.rounds
    assert second.prev_sha256 == first.model_sha256
    assert first.bytes_down > 2 * 4 * 8
    assert first.bytes_up > 2 * 4 * 8
    assert lab.reserves("s0") == lab.reserves("s1") == 2


def test_a_raising_site_is_refused_and_its_words_stay_home(
    make_lab: Any, make_plan: MakePlan
) -> None:
    lab = make_lab(make_plan(3, rounds=2))
    lab.run(lambda name, app: raising(app) if name == "s2" else app)
    assert [release.refused for release in lab.rounds] == [(("s2", "error"),)] * 2
    for path in (lab.folder / "rounds").rglob("*"):
        assert CANARY.encode() not in path.read_bytes()


def test_a_silent_site_is_late_and_the_others_go_on(make_lab: Any, make_plan: MakePlan) -> None:
    awake = threading.Event()
    lab = make_lab(make_plan(3, rounds=2, quorum=0.6, deadline_s=1.2))
    threading.Timer(4.0, awake.set).start()
    lab.run(lambda name, app: silent(app, awake) if name == "s1" else app, workers=3)
    assert [release.late for release in lab.rounds] == [("s1",), ("s1",)]
    assert [release.sites for release in lab.rounds] == [("s0", "s2")] * 2


def test_a_slow_site_is_asked_again_and_counted_once(make_lab: Any, make_plan: MakePlan) -> None:
    """Quorum 1: at the deadline the silent site is invited again; two same answers come."""
    awake = threading.Event()
    lab = make_lab(make_plan(2, rounds=2, deadline_s=1.0))
    asked: list[str] = []

    def wrap(name: str, app: Any) -> Any:
        if name == "s0":
            return app
        still = silent(app, awake, rounds=range(1, 2))

        def counted(message: Message, context: Context) -> Message:
            if message.metadata.message_type == "train":
                asked.append(unpack(message).header.decode())
            return still(message, context)

        return counted

    threading.Timer(1.6, awake.set).start()
    lab.run(wrap)
    assert [release.sites for release in lab.rounds] == [("s0", "s1")] * 2
    assert len(asked) >= 2
    assert lab.reserves("s1") == 2  # asked twice in round 1, charged once
    assert [site for _, site, _ in lab.answers].count("s1") == 2
    other = make_lab(make_plan(2, rounds=2, deadline_s=30.0), folder="undisturbed")
    other.run()
    assert model_of(lab) == model_of(other)


def test_the_first_answer_stands_on_disk_too(make_lab: Any, make_plan: MakePlan) -> None:
    """A site that answers its two invitations with two different updates has sent the first."""
    lab, memory = make_lab(make_plan(2, rounds=1)), {}
    key = lab.sites["s0"]._key

    def two_faced(message: Message, context: Context) -> Message:
        reply = make_app(lab.sites["s0"])(message, context)
        if message.metadata.message_type != "train" or not memory:
            if message.metadata.message_type == "train":
                memory["first"] = unpack(reply).payload
            return reply
        update = Update.open(unpack(reply), key.public_key())
        other = np.full(8, 0.5, dtype="<f4").tobytes()
        return Message(pack(update.seal(key, other)), reply_to=message)

    with LocalGrid([two_faced, make_app(lab.sites["s1"])]) as grid:
        drive = lab.drive(grid)
        while not drive.roll.is_complete:
            drive._meet()
        invite = rounds.Invite(
            round=1, attempt=1, sites=("s0", "s1"), closes_at=time.monotonic() + 60
        )
        drive._execute((invite, invite))
        state = rounds.start(
            rounds.Rules(roster=("s0", "s1"), rounds=1, quorum=1.0, deadline_s=60.0),
            committed=0,
            now=0.0,
        )[0]
        events: list[rounds.Event] = []
        while drive._waiting:
            events += drive._listen(state)
    answered = [event.site for event in events if isinstance(event, rounds.Answered)]
    assert sorted(answered) == ["s0", "s1"]
    assert lab.store.kept_payload(1, "s0") == memory["first"]


def test_no_site_takes_part(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(2, rounds=1))
    with pytest.raises(Refused, match="error"):
        lab.run(lambda name, app: raising(app))
    assert lab.rounds == []


def test_no_quorum_can_be_resumed(make_lab: Any, make_plan: MakePlan) -> None:
    awake = threading.Event()
    lab = make_lab(make_plan(2, rounds=3, deadline_s=1.0))
    threading.Timer(5.0, awake.set).start()
    with pytest.raises(Interrupted, match="silent: s1"):
        lab.run(lambda name, app: silent(app, awake, rounds=range(2, 99)) if name == "s1" else app)
    assert [release.round for release in lab.rounds] == [1]
    lab.run()
    assert [release.round for release in lab.rounds] == [1, 2, 3]
    other = make_lab(make_plan(2, rounds=3, deadline_s=30.0), folder="undisturbed")
    other.run()
    assert model_of(lab) == model_of(other)


def test_an_absent_site_without_quorum(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(2, rounds=1, deadline_s=0.3))
    with (
        LocalGrid([make_app(lab.sites["s0"])]) as grid,
        pytest.raises(Interrupted, match="never came: s1"),
    ):
        lab.drive(grid).run()


def test_waiting_for_an_absent_site_costs_no_cpu(make_lab: Any, make_plan: MakePlan) -> None:
    """A loop that only looks at the clock would burn the second that it waits."""
    lab = make_lab(make_plan(2, rounds=1, deadline_s=1.5))
    broken = raising(make_app(lab.sites["s1"]), kinds=("query.hello",))
    before = time.process_time()
    with LocalGrid([make_app(lab.sites["s0"]), broken]) as grid, pytest.raises(Interrupted):
        lab.drive(grid).run()
    assert time.process_time() - before < 0.9


def test_a_site_whose_first_hello_failed_is_asked_again(
    make_lab: Any, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collegium.server.roll._ASK_AGAIN_S", 0.05)
    lab = make_lab(make_plan(2, rounds=1))
    failures = [True, True]

    def shaky(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "query.hello" and failures:
            failures.pop()
            raise RuntimeError("not ready yet")
        return make_app(lab.sites["s1"])(message, context)

    lab.run(lambda name, app: shaky if name == "s1" else app)
    assert lab.rounds[0].sites == ("s0", "s1")


def test_reports_of_a_run_with_an_absent_site_do_not_wait_for_it(
    make_lab: Any, make_plan: MakePlan
) -> None:
    lab = make_lab(make_plan(2, rounds=1, quorum=0.5, deadline_s=1.0))
    with LocalGrid([make_app(lab.sites["s0"])]) as grid:
        drive = lab.drive(grid)
        vector = drive.run()
        met: list[int] = []
        drive._meet = lambda: met.append(1) or []  # type: ignore[method-assign]
        assert set(drive.reports(vector)) == {"s0"}
        assert met == []


def test_reports_of_a_finished_run_meet_the_sites_first(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(2, rounds=1))
    vector = lab.run()
    with LocalGrid([make_app(site) for site in lab.sites.values()]) as grid:
        drive = lab.drive(grid)
        np.testing.assert_array_equal(drive.run(), vector)
        found = drive.reports(vector)
    assert set(found) == {"s0", "s1"}
    assert all(0 <= metrics["accuracy"] <= 1 for metrics in found.values())


class Noisy(LocalGrid):
    """A Grid that also delivers replies to questions that were never asked."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for reply in super().pull_messages(message_ids):
            yield reply
            if reply.has_content():
                stray = Message(reply.content, reply_to=reply)
                stray.metadata.__dict__["_reply_to_message_id"] = "never-asked"
                yield stray


def test_stray_replies_are_ignored(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(2, rounds=2))
    with Noisy([make_app(site) for site in lab.sites.values()]) as grid:
        drive = lab.drive(grid)
        assert set(drive.reports(drive.run())) == {"s0", "s1"}
    assert [release.sites for release in lab.rounds] == [("s0", "s1")] * 2


def test_the_base_model_is_in_memory_once(make_lab: Any, make_plan: MakePlan) -> None:
    """500 queued invitations must not hold 500 copies of the model."""
    lab = make_lab(make_plan(3, rounds=1))
    payloads: list[int] = []

    class Counting(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            kept = list(messages)
            for message in kept:
                if message.metadata.message_type == "train":
                    array = message.content.array_records["vector"]["payload"]
                    payloads.append(id(array.data))
            return super().push_messages(kept)

    with Counting([make_app(site) for site in lab.sites.values()]) as grid:
        lab.drive(grid).run()
    assert len(payloads) == 3
    assert len(set(payloads)) == 1


def test_an_update_that_the_disk_changed_is_not_folded(
    make_lab: Any, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between admission and its turn an update waits on disk; resuming fetches it again."""
    lab = make_lab(make_plan(2, rounds=1))
    keep = lab.store.keep_update

    def flip(round: int, site: str, reply: Any) -> None:
        keep(round, site, reply)
        path = lab.folder / "updates" / f"round-{round:06d}" / f"{site}.payload"
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])

    monkeypatch.setattr(lab.store, "keep_update", flip)
    with pytest.raises(Interrupted, match=r"s0.*damaged"):
        lab.run()
    monkeypatch.undo()
    lab.run()
    assert lab.rounds[0].sites == ("s0", "s1")


def test_late_replies_do_not_pile_up(make_lab: Any, make_plan: MakePlan) -> None:
    """A reply to a round that is over is fetched and dropped, not left in the Grid for ever."""
    lab = make_lab(make_plan(2, rounds=6, quorum=0.5, deadline_s=0.3))
    awake = threading.Event()
    late = silent(make_app(lab.sites["s1"]), awake, rounds=range(1, 2))

    with LocalGrid([make_app(lab.sites["s0"]), late], workers=2) as grid:
        threading.Timer(0.7, awake.set).start()
        lab.drive(grid).run()
        for _ in range(200):
            if not any(grid._queues.values()) and not grid._busy:
                break
            time.sleep(0.02)
        assert len(grid._replies) <= 1  # what came after the last look
    assert lab.rounds[0].late == ("s1",)


def test_strangers_are_not_invited(make_lab: Any, make_plan: MakePlan) -> None:
    """A node with another consortium's site, and one that echoes our question."""
    lab = make_lab(make_plan(2, rounds=1))
    other = make_lab(make_plan(2, rounds=1), folder="other")

    def echo(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    apps = [make_app(other.sites["s0"]), echo, *(make_app(site) for site in lab.sites.values())]
    with LocalGrid(apps) as grid:
        lab.drive(grid).run()
    assert lab.rounds[0].sites == ("s0", "s1")
    assert other.reserves("s0") == 0


def test_metrics_only_in_the_rounds_of_the_plan(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(2, rounds=5, evaluation="every:2"))
    lab.run()
    looked = [release.round for release in lab.rounds if release.site_metrics]
    assert looked == [3, 5]  # an invitation looks at the model of the round before


def test_a_message_holds_no_field_that_could_be_a_seed(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(1, rounds=1, quorum=1.0, privacy={"sampling_rate": 0.4}))
    texts: list[str] = []

    def watch(name: str, app: Any) -> Any:
        def spy(message: Message, context: Context) -> Message:
            reply = app(message, context)
            texts.extend((unpack(message).header.decode(), unpack(reply).header.decode()))
            return reply

        return spy

    lab.run(watch)
    assert texts
    assert not [text for text in texts if "seed" in text]
