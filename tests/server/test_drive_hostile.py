"""The drive against sites with valid keys that mean harm: what they send stays without effect."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Context, Error, Message

from collegium.client._flwr import pack, unpack
from collegium.client.app import make_app
from collegium.core.codec import codec
from collegium.simulations.faults import CANARY, silent
from collegium.simulations.grid import LocalGrid
from collegium.simulations.lies import HELLO_LIES, REPORT_LIES, Liar, SealedLie

MakePlan = Callable[..., Any]


def telling(lab: Any, site: str, kind: str, lie: SealedLie) -> Any:
    """The app of a site that lies in every answer to questions of one kind."""
    app = make_app(lab.sites[site])
    liar = Liar(key=lab.sites[site]._key, codec=codec(lab.plan.codec.name), size=8)

    def told(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type != kind:
            return reply
        return Message(pack(lie(liar, unpack(reply))), reply_to=message)

    return told


@pytest.mark.parametrize("name", sorted(HELLO_LIES))
def test_a_site_that_lies_about_itself_takes_no_part(
    make_lab: Any, make_plan: MakePlan, name: str
) -> None:
    lab, heard = make_lab(make_plan(2, rounds=1, quorum=0.5, deadline_s=0.5)), list[Any]()
    apps = [make_app(lab.sites["s0"]), telling(lab, "s1", "query.hello", HELLO_LIES[name])]
    with LocalGrid(apps) as grid:
        drive = lab.drive(grid, on_event=lambda kind, **fields: heard.append((kind, fields)))
        assert set(drive.reports(drive.run())) == {"s0"}
    assert lab.rounds[0].sites == ("s0",)
    assert set(lab.rounds[0].heads) == {"s0"}
    assert CANARY not in json.dumps(heard, ensure_ascii=False).encode().decode()


@pytest.mark.parametrize("name", sorted(REPORT_LIES))
def test_a_lie_in_a_report_is_dropped(make_lab: Any, make_plan: MakePlan, name: str) -> None:
    lab = make_lab(make_plan(2, rounds=1))
    apps = [make_app(lab.sites["s0"]), telling(lab, "s1", "evaluate", REPORT_LIES[name])]
    with LocalGrid(apps) as grid:
        drive = lab.drive(grid)
        reports = drive.reports(drive.run())
    assert set(reports) == {"s0"}


def test_a_site_that_says_that_it_is_gone_is_not_sent_the_model_without_end(
    make_lab: Any, make_plan: MakePlan
) -> None:
    """Flower's error 5 is the transport's word, and a site may forge it."""
    lab, sent = make_lab(make_plan(2, rounds=1, quorum=0.5, deadline_s=2.0)), list[str]()
    honest = make_app(lab.sites["s1"])

    def gone(message: Message, context: Context) -> Message:
        if message.metadata.message_type != "train":
            return honest(message, context)
        sent.append(message.metadata.message_id)
        return Message(Error(code=5, reason="node unavailable"), reply_to=message)

    with LocalGrid([make_app(lab.sites["s0"]), gone]) as grid:
        lab.drive(grid).run()
    assert lab.rounds[0].late == ("s1",)
    assert 1 <= len(sent) <= 3


def test_a_site_that_never_answers_leaves_nothing_to_look_for(
    make_lab: Any, make_plan: MakePlan
) -> None:
    lab, awake = make_lab(make_plan(2, rounds=7, quorum=0.5, deadline_s=0.2)), threading.Event()
    late: list[int] = []
    apps = [make_app(lab.sites["s0"]), silent(make_app(lab.sites["s1"]), awake)]
    with LocalGrid(apps, workers=2) as grid:
        drive = lab.drive(grid, on_round=lambda release: late.append(len(drive._late)))
        drive.run()
        awake.set()
    assert late == [0, 1, 2, 2, 2, 2, 2]
