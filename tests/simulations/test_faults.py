"""The faults themselves: they touch training alone, and an honest wrapper changes nothing."""

import threading
import time
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict

from collegium.client._flwr import pack, unpack
from collegium.client.app import make_app
from collegium.core.codec import codec
from collegium.core.messages import Hello
from collegium.simulations._flwr import become_server, context_of, stamp
from collegium.simulations.faults import LIES, Liar, lying, raising, silent, slow
from collegium.simulations.grid import App


def ask(app: App, kind: str, content: RecordDict | None = None) -> Message:
    become_server()
    message = Message(content or RecordDict(), dst_node_id=2, message_type=kind)
    stamp(message, "m-1")
    return app(message, context_of(2, 0, 1))


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


def test_slow_raising_and_silent_touch_training_alone() -> None:
    began = time.monotonic()
    ask(slow(echo, 60.0), "query.hello")
    ask(silent(echo, threading.Event()), "query.hello")
    ask(raising(echo), "query.hello")
    assert time.monotonic() - began < 30
    with pytest.raises(RuntimeError, match="canary"):
        ask(raising(echo), "train")


def test_silent_until_it_is_woken() -> None:
    awake = threading.Event()
    quiet = silent(echo, awake, rounds=range(2, 3))
    ask(quiet, "train")  # the first is answered
    found: list[Message] = []
    thread = threading.Thread(target=lambda: found.append(ask(quiet, "train")))
    thread.start()
    thread.join(0.1)
    assert found == []
    awake.set()
    thread.join()
    assert len(found) == 1


def test_no_lie_is_told_at_hello(make_lab: Any) -> None:
    lab = make_lab()
    site = lab.sites["s0"]
    question = Hello(job="0" * 32, site="", plan="p", nonce="n", ledger_head="")
    honest = ask(make_app(site), "query.hello", pack(question.seal(lab.consortium.key)))
    liar = Liar(key=site._key, codec=codec("float32"), size=8)
    for lie, _ in LIES.values():
        told = ask(
            lying(make_app(site), lie, liar), "query.hello",
            pack(question.seal(lab.consortium.key)),
        )  # fmt: skip
        assert unpack(told) == unpack(honest)
