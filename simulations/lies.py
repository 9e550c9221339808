"""What a lying site sends in the place of its honest update: signed bytes that must be refused.

Every lie is told with the site's own key: what its signature cannot catch, the coordinator's
admission has to. Knows no Flower; ``faults`` puts these lies into a ClientApp, ``nemesis`` into
a simulated site.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.codec import Codec
from ..core.digest import sha256_hex
from ..core.layout import Vector
from ..core.messages import Sealed
from ..core.signing import generate_key, pae

CANARY = "canary-7f3a-patient-4711"
"""A text that must never be seen outside the site that raised it."""

_UPDATE, _DECLINE, _HELLO, _REPORT = "update", "decline", "hello", "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """What a site knows that lies about its own update: its key and its codec."""

    key: Ed25519PrivateKey
    codec: Codec
    size: int
    memory: dict[str, Sealed] = field(default_factory=dict[str, Sealed])


SealedLie = Callable[[Liar, Sealed], Sealed]
"""From the honest answer to the answer that is sent."""


def _with_header(*, kind: str = _UPDATE, **changes: Any) -> SealedLie:
    """Return the lie that signs other header fields."""

    def lie(liar: Liar, honest: Sealed) -> Sealed:
        values = json.loads(honest.header) | changes
        return _signed(liar.key, values, honest.payload, kind=kind)

    return lie


def _with_vector(change: Callable[[Vector], Vector]) -> SealedLie:
    """Return the lie that signs another vector of the right length."""

    def lie(liar: Liar, honest: Sealed) -> Sealed:
        vector = change(liar.codec.decode(honest.payload, liar.size).copy())
        return _signed(liar.key, json.loads(honest.header), liar.codec.encode(vector))

    return lie


def _with_payload(change: Callable[[bytes], bytes]) -> SealedLie:
    """Return the lie that signs other bytes."""

    def lie(liar: Liar, honest: Sealed) -> Sealed:
        return _signed(liar.key, json.loads(honest.header), change(honest.payload))

    return lie


def _with_seal(change: Callable[[Sealed], Sealed]) -> SealedLie:
    """Return the lie that changes bytes after they were signed."""
    return lambda liar, honest: change(honest)


def replay(liar: Liar, honest: Sealed) -> Sealed:
    """Send the first update again in every later round: honest in the first one."""
    return liar.memory.setdefault("first", honest)


def _forged_decline(code: str) -> SealedLie:
    """Return the lie of a signed decline with any code, even ``ok``."""

    def lie(liar: Liar, honest: Sealed) -> Sealed:
        header = json.loads(honest.header)
        values = {name: header[name] for name in ("job", "site", "round", "attempt")}
        return _signed(liar.key, values | {"code": code}, b"", kind=_DECLINE)

    return lie


def _stranger(liar: Liar, honest: Sealed) -> Sealed:
    """Sign with a key that nobody knows."""
    return _signed(generate_key(), json.loads(honest.header), honest.payload)


def _set(vector: Vector, value: float) -> Vector:
    vector[len(vector) // 2] = value
    return vector


def _flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def _signed(
    key: Ed25519PrivateKey, values: Mapping[str, Any], payload: bytes, *, kind: str = _UPDATE
) -> Sealed:
    """Sign any header at all, even one that our own code would never write."""
    text = json.dumps(dict(values) | {"payload_sha256": sha256_hex(payload)}, sort_keys=True)
    header = text.encode()
    signature = key.sign(pae(f"application/vnd.collegium.{kind}+json", header))
    return Sealed(header=header, signature=signature, payload=payload)


_SURROGATE = "\ud800"  # JSON may hold it, and no UTF-8 text can

SEALED_LIES: Mapping[str, tuple[SealedLie, str]] = {
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
    "surrogate-metric": (_with_header(metrics={_SURROGATE: 0.5}), "schema"),
    "long-metric": (_with_header(metrics={"a" * 65: 0.5}), "schema"),
    "many-metrics": (_with_header(metrics={f"m{n}": 0.5 for n in range(33)}), "schema"),
    "unasked-metric": (_with_header(metrics={"accuracy": 0.5}), "metrics"),
    "invented-metric": (_with_header(metrics={CANARY: 0.5}), "metrics"),
    "surrogate-head": (_with_header(ledger_head=_SURROGATE), "schema"),
    "long-head": (_with_header(ledger_head="0" * 10_000), "schema"),
    "told-head": (_with_header(ledger_head=CANARY), "schema"),
    "no-head": (_with_header(ledger_head=""), "schema"),
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
    "far-too-long": (_with_payload(lambda data: data + bytes(1 << 16)), "shape"),
    "no-payload": (_with_payload(lambda data: b""), "shape"),
    "forged-ok": (_forged_decline("ok"), "shape"),
    "invented-code": (_forged_decline(CANARY), "shape"),
    "false-decline": (_forged_decline("budget"), "budget"),
}
"""Each lie with the reason code under which it must be refused."""

HELLO_LIES: Mapping[str, SealedLie] = {
    "surrogate": _with_header(kind=_HELLO, ledger_head=_SURROGATE),
    "told": _with_header(kind=_HELLO, ledger_head=CANARY),
    "no-head": _with_header(kind=_HELLO, ledger_head=""),
    "long": _with_header(kind=_HELLO, ledger_head="0" * 10_000),
    "other-plan": _with_header(kind=_HELLO, plan=_SURROGATE),
    "old-nonce": _with_header(kind=_HELLO, nonce="0"),
    "payload": lambda liar, honest: _signed(
        liar.key, json.loads(honest.header), bytes(1 << 16), kind=_HELLO
    ),
}
"""Lies of a site about itself, after which it is not met: it has to be asked again."""

REPORT_LIES: Mapping[str, SealedLie] = {
    "surrogate": _with_header(kind=_REPORT, metrics={_SURROGATE: 0.5}),
    "invented": _with_header(kind=_REPORT, metrics={"accuracy": 0.5, CANARY: 0.5}),
    "counts": _with_header(kind=_REPORT, metrics={"correct": 1e300, "records": 1e-300}),
    "large": _with_header(kind=_REPORT, metrics={"accuracy": 1e9}),
    "many": _with_header(kind=_REPORT, metrics={f"m{n}": 0.5 for n in range(500)}),
    "other-model": _with_header(kind=_REPORT, model_sha256=CANARY),
    "payload": lambda liar, honest: _signed(
        liar.key, json.loads(honest.header), bytes(1 << 16), kind=_REPORT
    ),
}
"""Lies of a site about a public test part; the run goes on without its report."""
