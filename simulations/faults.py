"""Sites that misbehave: slow, silent, raising and lying wrappers around a ClientApp callable.

Every lie is told by the site itself, with its own key: what its signature cannot catch, the
coordinator's admission has to. Used by tests and fault runs, never by a real site.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from ..client._flwr import pack, unpack
from ..core.wire import PAYLOAD, SEAL, VECTOR
from .grid import App
from .lies import CANARY, SEALED_LIES, Liar, SealedLie, replay

__all__ = ["CANARY", "LIES", "REPLAY", "Liar", "Lie", "lying", "raising", "silent", "slow"]


def slow(app: App, seconds: float) -> App:
    """Return an app that answers training as late as that."""

    def late(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            time.sleep(seconds)
        return app(message, context)

    return late


def silent(app: App, until: threading.Event, *, rounds: range | None = None) -> App:
    """Return an app that answers no training message (of these, counted) before ``until``."""
    seen = _Counter()

    def still(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train":
            number = seen.next()
            if rounds is None or number in rounds:
                until.wait()
        return app(message, context)

    return still


def raising(app: App, text: str = CANARY, *, kinds: tuple[str, ...] = ("train",)) -> App:
    """Return an app that raises, with ``text`` in the exception, for messages of these kinds."""

    def broken(message: Message, context: Context) -> Message:
        if message.metadata.message_type in kinds:
            raise RuntimeError(f"record {text} cannot be read")
        return app(message, context)

    return broken


Lie = Callable[[Liar, Message, Message], Message]
"""From the coordinator's question and the honest answer to the answer that is sent."""


def lying(app: App, lie: Lie, liar: Liar) -> App:
    """Return an app that tells ``lie`` in the place of each of its training answers."""

    def liar_app(message: Message, context: Context) -> Message:
        reply = app(message, context)
        return lie(liar, message, reply) if message.metadata.message_type == "train" else reply

    return liar_app


def _sealed(lie: SealedLie) -> Lie:
    """Return the lie that sends other signed bytes."""

    def told(liar: Liar, question: Message, reply: Message) -> Message:
        return Message(pack(lie(liar, unpack(reply))), reply_to=question)

    return told


def _with_records(change: Callable[[RecordDict], RecordDict]) -> Lie:
    """Return the lie that sends other Flower records."""

    def lie(liar: Liar, question: Message, reply: Message) -> Message:
        return Message(change(reply.content), reply_to=question)

    return lie


def _error_text(liar: Liar, question: Message, reply: Message) -> Message:
    """Send an error whose text holds what must not be seen."""
    return Message(Error(code=2, reason=CANARY), reply_to=question)


def _bad_npy(raw: bytes) -> Callable[[RecordDict], RecordDict]:
    def change(content: RecordDict) -> RecordDict:
        array = Array(dtype="uint8", shape=(1,), stype="numpy.ndarray", data=raw)
        return RecordDict({SEAL: content[SEAL], VECTOR: ArrayRecord({PAYLOAD: array})})

    return change


def _extra(name: str, record: Any) -> Callable[[RecordDict], RecordDict]:
    def change(content: RecordDict) -> RecordDict:
        return RecordDict({**content, name: record})

    return change


def _extra_key(content: RecordDict) -> RecordDict:
    seal = ConfigRecord({**content.config_records[SEAL], "note": CANARY})
    return RecordDict({SEAL: seal, VECTOR: content[VECTOR]})


_PICKLE = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins."
_HUGE_HEADER = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }   \n"

LIES: Mapping[str, tuple[Lie, str]] = {
    **{name: (_sealed(lie), code) for name, (lie, code) in SEALED_LIES.items()},
    "garbage-array": (_with_records(_bad_npy(b"garbage")), "payload"),
    "pickled-array": (_with_records(_bad_npy(_PICKLE)), "payload"),
    "monstrous-array": (
        _with_records(
            _bad_npy(b"\x93NUMPY\x01\x00" + len(_HUGE_HEADER).to_bytes(2, "little") + _HUGE_HEADER)
        ),
        "payload",
    ),
    "empty-records": (_with_records(lambda content: RecordDict()), "schema"),
    "extra-metrics": (_with_records(_extra("more", MetricRecord({"count": 12}))), "schema"),
    "extra-config": (_with_records(_extra("more", ConfigRecord({"note": CANARY}))), "schema"),
    "extra-array": (_with_records(_extra("more", ArrayRecord())), "schema"),
    "extra-key": (_with_records(_extra_key), "schema"),
    "error-text": (_error_text, "error"),
}
"""Each lie with the reason code under which it must be refused."""

REPLAY: tuple[Lie, str] = (_sealed(replay), "round")
"""Honest in the first round; from the second on the first update again."""


class _Counter:
    """Counts calls from 1, from any thread."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0

    def next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count
