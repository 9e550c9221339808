"""Who is there: how often nodes are asked, and what a site may say of itself."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from collegium.core.codec import codec
from collegium.core.messages import Hello, Sealed
from collegium.server.post import Answer, Malformed
from collegium.server.roll import Roll
from collegium.simulations.lies import HELLO_LIES, Liar

HEAD = "sha256:" + "0" * 64


class Ticking:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Hands:
    """A post whose answers a test puts in by hand."""

    def __init__(self, nodes: Collection[int]) -> None:
        self.listed, self.sent = nodes, list[tuple[int, Sealed]]()
        self.ready: dict[str, Answer] = {}
        self.looked_for: list[str] = []
        self.batches: list[int] = []

    def nodes(self) -> Collection[int]:
        return self.listed

    def share(self, payload: bytes) -> object:
        return payload

    def send(self, node: int, kind: str, sealed: Sealed, shared: object | None = None) -> str:
        del kind, shared
        self.sent.append((node, sealed))
        return f"m{len(self.sent)}"

    def fetch(self, ids: Iterable[str], *, most: int) -> Iterator[tuple[str, Answer]]:
        assert most == 0
        self.looked_for = list(ids)
        self.batches.append(len(self.looked_for))
        for name in self.looked_for:
            if name in self.ready:
                yield name, self.ready.pop(name)


class Desk:
    """A roll call over two sites, one node each, by a clock of its own."""

    def __init__(self, lab: Any, deadline_s: float = 40.0) -> None:
        self.lab, self.clock, self.post = lab, Ticking(), Hands([1, 2])
        rounds = replace(lab.plan.rounds, deadline_s=deadline_s)
        self.task = lab.task(clock=self.clock, plan=replace(lab.plan, rounds=rounds))
        self.roll = Roll(self.task, self.post, {})

    def pass_(self, seconds: float, *, step: float = 1.0) -> None:
        until = self.clock.time + seconds
        while self.clock.time < until:
            self.clock.sleep(step)
            self.roll.look()

    def answer(self, number: int, site: str, **changes: Any) -> None:
        """Answer the question of that number (from 0) as a site."""
        _, question = self.post.sent[number]
        asked = Hello.open(question, self.lab.consortium.key.public_key())
        values = {"site": site, "ledger_head": HEAD, "payload_sha256": ""} | changes
        sealed = replace(asked, **values).seal(self.lab.sites[site]._key)
        self.post.ready[f"m{number + 1}"] = sealed


@pytest.fixture
def desk(make_lab: Any, make_plan: Any) -> Desk:
    return Desk(make_lab(make_plan(2, rounds=1)))


def test_a_site_that_says_it_is_gone_is_not_asked_again_at_once(desk: Desk) -> None:
    desk.roll.look()
    desk.answer(0, "s0")
    assert [change.site for change in desk.roll.look()] == ["s0"]
    asked = len(desk.post.sent)
    assert desk.roll.forget("s0", 1)
    desk.pass_(4.0)
    assert [node for node, _ in desk.post.sent[asked:]] == []
    desk.pass_(2.0)
    assert [node for node, _ in desk.post.sent[asked:]] == [1]


def test_one_hello_is_open_for_each_node(desk: Desk) -> None:
    desk.pass_(3600.0)
    assert sorted(desk.post.looked_for) == sorted(desk.roll._hellos)
    assert len(desk.post.looked_for) == 2
    assert max(desk.post.batches) == 2
    assert len(desk.post.sent) < 2 * 14  # ever more seldom, too


def test_no_hello_is_open_for_a_node_that_went(desk: Desk) -> None:
    desk.pass_(2.0)
    desk.post.listed = [2]
    desk.pass_(2.0)
    assert [asked.node for asked in desk.roll._hellos.values()] == [2]


def test_a_site_that_answers_the_last_question_late_is_met(desk: Desk) -> None:
    """Its answers take longer than the first pauses: only the pauses that grow let it in."""
    answered = 0
    sent_at: dict[int, float] = {}
    for _ in range(600):
        desk.pass_(1.0)
        for number in range(len(desk.post.sent)):
            sent_at.setdefault(number, desk.clock.time)
        for number, at in sent_at.items():
            if number >= answered and desk.clock.time - at >= 65.0:
                if desk.post.sent[number][0] == 1:
                    desk.answer(number, "s0")
                answered = number + 1
        if "s0" in desk.roll.nodes:
            break
    assert desk.roll.nodes == {"s0": 1}


def test_a_bad_answer_is_asked_for_again_soon(desk: Desk) -> None:
    desk.pass_(300.0)
    asked = len(desk.post.sent)
    newest = max(int(name[1:]) for name in desk.roll._hellos)
    desk.post.ready[f"m{newest}"] = Malformed(code="error")
    desk.pass_(7.0)
    assert len(desk.post.sent) > asked


def test_a_hello_without_a_ledger_head_is_not_met(desk: Desk) -> None:
    desk.roll.look()
    desk.answer(0, "s0", ledger_head="")
    assert desk.roll.look() == []
    assert desk.roll.heads == {}
    desk.pass_(6.0)
    number = next(n for n, (node, _) in enumerate(desk.post.sent) if node == 1 and n > 1)
    desk.answer(number, "s0")
    desk.pass_(1.0)
    assert desk.roll.heads == {"s0": HEAD}


def test_a_hello_with_a_surrogate_leaves_the_coordinator_able_to_speak(
    make_lab: Any, make_plan: Any
) -> None:
    """One site's text once stopped every later invitation to it with a UnicodeEncodeError."""
    lab = make_lab(make_plan(2, rounds=1))
    site = lab.sites["s0"]
    liar = Liar(key=site._key, codec=codec("float32"), size=8)
    for name, lie in HELLO_LIES.items():
        desk = Desk(lab, lab.plan.rounds.deadline_s)
        desk.roll.look()
        honest = site.hello(desk.post.sent[0][1])
        told = lie(liar, honest)
        desk.post.ready["m1"] = Malformed(code="shape") if told.payload else told
        assert desk.roll.look() == [], name
        assert desk.roll.heads == {}, name
        desk.pass_(6.0)
        number = next(n for n, (node, _) in enumerate(desk.post.sent) if node == 1 and n > 1)
        desk.post.ready[f"m{number + 1}"] = site.hello(desk.post.sent[number][1])
        desk.pass_(1.0)
        assert desk.roll.nodes == {"s0": 1}, name
