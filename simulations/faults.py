"""Sites that misbehave: slow, silent, raising and lying wrappers around a ClientApp callable.

Every lie is told by the site itself, with its own key: what its signature cannot catch, the
coordinator's admission has to. Used by tests and fault runs, never by a real site.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
from ..core.codec import Codec
from ..core.layout import Vector
from ..core.messages import Sealed
from ..core.signing import generate_key, pae
from ..core.wire import PAYLOAD, SEAL, VECTOR
from .grid import App

CANARY = "canary-7f3a-patient-4711"
"""A text that must never be seen outside the site that raised it."""

_UPDATE, _DECLINE = "update", "decline"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """What a site knows that lies about its own update: its key and its codec."""

    key: Ed25519PrivateKey
    codec: Codec
    size: int
    memory: dict[str, Message] = field(default_factory=dict[str, Message])


Lie = Callable[[Liar, Message, Message], Message]
"""From the coordinator's question and the honest answer to the answer that is sent."""


def lying(app: App, lie: Lie, liar: Liar) -> App:
    """Return an app that tells ``lie`` in the place of each of its training answers."""

    def liar_app(message: Message, context: Context) -> Message:
        reply = app(message, context)
        return lie(liar, message, reply) if message.metadata.message_type == "train" else reply

    return liar_app


def _with_header(**changes: Any) -> Lie:
    """Return the lie that signs other header fields."""

    def lie(liar: Liar, question: Message, reply: Message) -> Message:
        sealed = unpack(reply)
        values = json.loads(sealed.header) | changes
        return Message(pack(_signed(liar.key, values, sealed.payload)), reply_to=question)

    return lie


def _with_vector(change: Callable[[Vector], Vector]) -> Lie:
    """Return the lie that signs another vector of the right length."""

    def lie(liar: Liar, question: Message, reply: Message) -> Message:
        sealed = unpack(reply)
        vector = change(liar.codec.decode(sealed.payload, liar.size).copy())
        return _answer(liar, question, sealed, liar.codec.encode(vector))

    return lie


def _with_payload(change: Callable[[bytes], bytes]) -> Lie:
    """Return the lie that signs other bytes."""

    def lie(liar: Liar, question: Message, reply: Message) -> Message:
        sealed = unpack(reply)
        return _answer(liar, question, sealed, change(sealed.payload))

    return lie


def _with_seal(change: Callable[[Sealed], Sealed]) -> Lie:
    """Return the lie that changes bytes after they were signed."""

    def lie(liar: Liar, question: Message, reply: Message) -> Message:
        return Message(pack(change(unpack(reply))), reply_to=question)

    return lie


def _with_records(change: Callable[[RecordDict], RecordDict]) -> Lie:
    """Return the lie that sends other Flower records."""

    def lie(liar: Liar, question: Message, reply: Message) -> Message:
        return Message(change(reply.content), reply_to=question)

    return lie


def _replay(liar: Liar, question: Message, reply: Message) -> Message:
    """Send the first update again in every later round."""
    first = liar.memory.setdefault("first", reply)
    return Message(first.content, reply_to=question)


def _error_text(liar: Liar, question: Message, reply: Message) -> Message:
    """Send an error whose text holds what must not be seen."""
    return Message(Error(code=2, reason=CANARY), reply_to=question)


def _forged_decline(code: str) -> Lie:
    """Return the lie of a signed decline with any code, even ``ok``."""

    def lie(liar: Liar, question: Message, reply: Message) -> Message:
        header = json.loads(unpack(reply).header)
        values = {name: header[name] for name in ("job", "site", "round", "attempt")}
        sealed = _signed(liar.key, values | {"code": code}, b"", kind=_DECLINE)
        return Message(pack(sealed), reply_to=question)

    return lie


def _stranger(liar: Liar, question: Message, reply: Message) -> Message:
    """Sign with a key that nobody knows."""
    sealed = unpack(reply)
    forged = _signed(generate_key(), json.loads(sealed.header), sealed.payload)
    return Message(pack(forged), reply_to=question)


def _set(vector: Vector, value: float) -> Vector:
    vector[len(vector) // 2] = value
    return vector


def _flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


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
    "nan": (_with_vector(lambda v: _set(v, float("nan"))), "nonfinite"),
    "infinite": (_with_vector(lambda v: _set(v, float("-inf"))), "nonfinite"),
    "huge": (_with_vector(lambda v: np.full_like(v, 1e30)), "norm"),
    "loud": (_with_vector(lambda v: np.full_like(v, 1e4)), "norm"),
    "wrong-layout": (_with_header(layout="sha256:" + "0" * 64), "layout"),
    "wrong-round": (_with_header(round=99), "round"),
    "wrong-attempt": (_with_header(attempt=2), "attempt"),
    "wrong-job": (_with_header(job="0" * 32), "job"),
    "wrong-base": (_with_header(base_sha256="sha256:" + "0" * 64), "base"),
    "wrong-mechanism": (_with_header(spec="sha256:" + "0" * 64), "mechanism"),
    "wrong-codec": (_with_header(codec="zip"), "codec"),
    "wrong-site": (_with_header(site="somebody-else"), "roster"),
    "unknown-field": (_with_header(seed=1), "schema"),
    "wrong-type": (_with_header(round="1"), "schema"),
    "nan-metric": (_with_header(metrics={"accuracy": float("nan")}), "schema"),
    "infinite-metric": (_with_header(metrics={"accuracy": float("inf")}), "schema"),
    "monstrous-metric": (_with_header(metrics={"accuracy": 10**400}), "schema"),
    "long-header": (_with_header(job="0" * 20_000), "header"),
    "bad-signature": (
        _with_seal(
            lambda s: Sealed(header=s.header, signature=_flip(s.signature), payload=s.payload)
        ),
        "signature",
    ),
    "short-signature": (
        _with_seal(lambda s: Sealed(header=s.header, signature=b"", payload=s.payload)),
        "signature",
    ),
    "changed-header": (
        _with_seal(
            lambda s: Sealed(header=s.header + b" ", signature=s.signature, payload=s.payload)
        ),
        "signature",
    ),
    "changed-payload": (
        _with_seal(
            lambda s: Sealed(header=s.header, signature=s.signature, payload=_flip(s.payload))
        ),
        "payload",
    ),
    "stranger": (_stranger, "signature"),
    "too-short": (_with_payload(lambda data: data[:-1]), "shape"),
    "too-long": (_with_payload(lambda data: data + b"\0"), "shape"),
    "no-payload": (_with_payload(lambda data: b""), "shape"),
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
    "forged-ok": (_forged_decline("ok"), "shape"),
    "invented-code": (_forged_decline(CANARY), "shape"),
    "false-decline": (_forged_decline("budget"), "budget"),
}
"""Each lie with the reason code under which it must be refused."""

REPLAY: tuple[Lie, str] = (_replay, "round")
"""Honest in the first round; from the second on the first update again."""


class _Counter:
    """Counts calls from 1, from any thread."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0

    def next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count


def _answer(liar: Liar, question: Message, honest: Sealed, payload: bytes) -> Message:
    return Message(pack(_signed(liar.key, json.loads(honest.header), payload)), reply_to=question)


def _signed(
    key: Ed25519PrivateKey, values: Mapping[str, Any], payload: bytes, *, kind: str = _UPDATE
) -> Sealed:
    """Sign any header at all, even one that our own code would never write."""
    from ..core.digest import sha256_hex

    text = json.dumps(dict(values) | {"payload_sha256": sha256_hex(payload)}, sort_keys=True)
    header = text.encode()
    signature = key.sign(pae(f"application/vnd.collegium.{kind}+json", header))
    return Sealed(header=header, signature=signature, payload=payload)
