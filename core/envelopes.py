"""Signatures that grow: members sign one payload one after another, in any order, anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .digest import canonical_bytes
from .errors import InvalidInput, Refused
from .public_keys import ed25519_key_fault
from .signing import fingerprint, pae, public_from_fingerprint, verify

PLAN_TYPE = "application/vnd.collegium.plan+json"
ROSTER_TYPE = "application/vnd.collegium.roster+json"
MAX_BYTES = 8 * 1024 * 1024
MAX_SIGNATURES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """An opened DSSE envelope; ``signatures`` maps fingerprints to signatures that hold."""

    payload: bytes
    payload_type: str
    signatures: Mapping[str, str]

    @property
    def signers(self) -> tuple[str, ...]:
        """Return the fingerprints of all keys that signed, sorted; nobody has vouched for them."""
        return tuple(sorted(self.signatures))

    def to_bytes(self) -> bytes:
        """Return the envelope as canonical JSON, signatures in the order of their keys."""
        return canonical_bytes(
            {
                "payload": base64.b64encode(self.payload).decode(),
                "payloadType": self.payload_type,
                "signatures": [{"keyid": key, "sig": self.signatures[key]} for key in self.signers],
            }
        )


def read_envelope(raw: bytes) -> Envelope:
    """Return the payload and every signature in it that holds.

    A ``keyid`` spells its key out, so a signature is checked against the key that it names; one
    that does not hold is left out. Raises ``InvalidInput`` for anything but a DSSE envelope.
    """
    try:
        outer = _outer(raw)
        kind, payload = outer["payloadType"], base64.b64decode(outer["payload"], validate=True)
        entries = outer["signatures"]
        if not isinstance(kind, str) or not isinstance(entries, list):
            raise TypeError
        if len(entries) > MAX_SIGNATURES:
            raise ValueError
        named = [(str(entry["keyid"]), str(entry["sig"])) for entry in entries]
        message = pae(kind, payload)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(
            "this is not a DSSE envelope",
            cure="fetch the file again; `collegium provision` and `plan sign` write envelopes",
        ) from None
    good = {key: sig for key, sig in named if _holds(key, sig, message)}
    return Envelope(payload=payload, payload_type=kind, signatures=good)


def unsigned(payload: bytes, payload_type: str) -> bytes:
    """Return an envelope that nobody has signed yet."""
    return Envelope(payload=payload, payload_type=payload_type, signatures={}).to_bytes()


def add_signature(
    envelope: bytes | None, payload: bytes, key: Ed25519PrivateKey, payload_type: str
) -> bytes:
    """Return the envelope with ``key``'s signature in it; signing twice changes nothing.

    Raises ``Refused`` when the envelope is about other bytes: signatures on two payloads cannot
    stand in one envelope.
    """
    signature = base64.b64encode(key.sign(pae(payload_type, payload))).decode()
    mine = Envelope(
        payload=payload,
        payload_type=payload_type,
        signatures={fingerprint(key.public_key()): signature},
    ).to_bytes()
    return mine if envelope is None else merge_envelopes(envelope, mine)


def merge_envelopes(first: bytes, *others: bytes) -> bytes:
    """Return one envelope with the signatures of all that hold, whatever came first.

    Raises ``Refused`` when two of them are about different bytes.
    """
    opened = [read_envelope(raw) for raw in (first, *others)]
    if len({(one.payload, one.payload_type) for one in opened}) > 1:
        raise Refused(
            "the envelopes are about different bytes",
            why="a plan or roster has changed since somebody signed it",
            cure="sign the newer one again: `collegium plan sign`",
        )
    signatures = {key: sig for one in opened for key, sig in one.signatures.items()}
    return Envelope(
        payload=opened[0].payload, payload_type=opened[0].payload_type, signatures=signatures
    ).to_bytes()


def _outer(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise ValueError
    outer = json.loads(raw)
    if not isinstance(outer, dict):
        raise TypeError
    return cast("dict[str, Any]", outer)


def _holds(key: str, signature: str, message: bytes) -> bool:
    if ed25519_key_fault(key):
        return False
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        return False
    return verify(public_from_fingerprint(key), raw, message)
