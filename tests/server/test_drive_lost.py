"""What the post loses, and who goes and comes: told, and asked again."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import Context, Error, Message

from collegium.client.app import make_app
from collegium.simulations.faults import CANARY, raising
from collegium.simulations.grid import LocalGrid

MakePlan = Callable[..., Any]


def test_what_happens_is_told_as_it_happens(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(2, rounds=1, quorum=0.5))
    heard: list[tuple[str, Any]] = []
    lab.run(
        lambda name, app: raising(app) if name == "s1" else app,
        on_event=lambda kind, **fields: heard.append((kind, fields)),
    )
    kinds = [kind for kind, _ in heard]
    assert kinds[:3] == ["seen", "seen", "invited"]
    assert kinds[-1] == "round"
    answered = [fields for kind, fields in heard if kind == "answered"]
    assert sorted((one["site"], one["code"]) for one in answered) == [("s0", "ok"), ("s1", "error")]
    assert heard[-1][1]["model_sha256"] == lab.rounds[0].model_sha256
    assert CANARY not in str(heard)


def test_an_error_of_the_transport_is_not_the_sites_answer(
    make_lab: Any, make_plan: MakePlan
) -> None:
    """A crashed ClientApp process (8) is asked again in the same round, and charged once."""
    lab, crashes, lost = make_lab(make_plan(2, rounds=1)), [8, 4], []

    def wrap(name: str, app: Any) -> Any:
        def crashing(message: Message, context: Context) -> Message:
            reply = app(message, context)
            if name == "s1" and message.metadata.message_type == "train" and crashes:
                return Message(Error(code=crashes.pop(), reason="gone"), reply_to=message)
            return reply

        return crashing

    def heard(kind: str, **fields: Any) -> None:
        if kind == "lost":
            lost.append(fields["reason"])

    lab.run(wrap, on_event=heard)
    assert lost == ["unavailable", "crashed"]
    assert lab.rounds[0].sites == ("s0", "s1")
    assert lab.reserves("s1") == 1


class Renumbering(LocalGrid):
    """A Grid whose second node goes while it is asked, and comes back under another id."""

    def __init__(self, apps: Any, **options: Any) -> None:
        super().__init__(apps, **options)
        self.moved = False

    def get_node_ids(self) -> Iterable[int]:
        ids = list(super().get_node_ids())
        return [ids[0], ids[2] if self.moved else ids[1]]


def test_a_site_is_met_again_under_another_node(make_lab: Any, make_plan: MakePlan) -> None:
    lab = make_lab(make_plan(2, rounds=2))
    first, second = (make_app(site) for site in lab.sites.values())

    def going(message: Message, context: Context) -> Message:
        if message.metadata.message_type != "train":
            return second(message, context)
        grid.moved = True
        return Message(Error(code=5, reason="node unavailable"), reply_to=message)

    with Renumbering([first, going, second]) as grid:
        lab.drive(grid).run()
    assert [release.sites for release in lab.rounds] == [("s0", "s1")] * 2
    assert lab.reserves("s1") == 2


def test_a_question_lost_without_a_word_is_asked_again(
    make_lab: Any, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed SuperLink may have handed a message out that never arrived: no error ever comes."""
    monkeypatch.setattr("collegium.server.courier._LEAST_SILENCE_S", 0.2)
    lab = make_lab(make_plan(2, rounds=2, deadline_s=2.0))  # a tenth of the deadline is .2 s
    swallowed: list[str] = []

    class Lossy(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            kept: list[Message] = []
            for message in messages:
                kind = message.metadata.message_type
                if kind != "query.hello" and kind not in swallowed:
                    swallowed.append(kind)
                    return [f"lost-{kind}"]
                kept.append(message)
            return super().push_messages(kept)

    with Lossy([make_app(site) for site in lab.sites.values()]) as grid:
        drive = lab.drive(grid)
        reports = drive.reports(drive.run())
    assert swallowed == ["train", "evaluate"]
    assert [release.sites for release in lab.rounds] == [("s0", "s1")] * 2
    assert not [release for release in lab.rounds if release.late]
    assert set(reports) == {"s0", "s1"}
    assert lab.reserves("s0") == lab.reserves("s1") == 2
