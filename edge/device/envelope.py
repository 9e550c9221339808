"""The signature before anything else: keys and DSSE envelopes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .errors import DeviceError
from .files import read_limited
from .names import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, SIGNATURE_FILE

FINGERPRINT = "ed25519:"
MOST_SIGNATURES = 256
PUBLIC_KEY_INFO = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of every Ed25519 key in DER."""
SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Points whose order divides 8, without the bit of sign: anyone could sign for such a key."""


def load_key(path: Path) -> Ed25519PublicKey:
    """Read the trusted public key (PEM); raises ``DeviceError``."""
    pem = read_limited(path, MAX_ENVELOPE_BYTES)
    try:
        key = _plain_key(pem) or _any_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey) or _weak(key):
        raise DeviceError("BAD KEY", f"{path.name} is not an Ed25519 public key in PEM", 65)
    return key


def _plain_key(pem: bytes) -> Ed25519PublicKey | None:
    """Return the key of a PEM file in its one usual form, None for any other (RFC 8410, 4)."""
    lines = [line.strip() for line in pem.strip().splitlines()]
    if len(lines) < 2:
        return None
    head, *body, tail = lines
    if (head, tail) != (b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"):
        return None
    der = base64.b64decode(b"".join(body), validate=True)
    if len(der) != len(PUBLIC_KEY_INFO) + 32 or not der.startswith(PUBLIC_KEY_INFO):
        return None
    return Ed25519PublicKey.from_public_bytes(der[len(PUBLIC_KEY_INFO) :])


def _any_key(pem: bytes) -> object:
    # here, because it costs 2 MB and 9 ms
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(pem)


def read_key(text: str) -> Ed25519PublicKey:
    """Return the key that is written out (``ed25519:`` and base64), or that a PEM file holds."""
    if not text.startswith(FINGERPRINT):
        return load_key(Path(text))
    try:
        raw = base64.b64decode(text.removeprefix(FINGERPRINT), validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw)
        if _weak(key):
            raise ValueError(text)
    except ValueError:
        reason = f"a key reads {FINGERPRINT} and the base64 of 32 bytes"
        raise DeviceError("BAD KEY", reason, 65) from None
    return key


def _weak(key: Ed25519PublicKey) -> bool:
    raw = key.public_bytes_raw()
    return raw[:31] + bytes([raw[31] & 0x7F]) in SMALL_ORDER


def fingerprint_of(key: Ed25519PublicKey) -> str:
    """Return ``ed25519:`` and the base64 of the 32 raw bytes: the key itself, not a hash."""
    return FINGERPRINT + base64.b64encode(key.public_bytes_raw()).decode()


def canonical_key(text: str) -> str:
    """Return the one fingerprint of a key that ``read_key`` reads: what may be compared.

    Base64 has several spellings of the same bytes, and a PEM file holds a key too.
    """
    return fingerprint_of(read_key(text))


def signed_payload(
    envelope: bytes,
    trusted: Sequence[Ed25519PublicKey],
    threshold: int,
    *,
    revoked: Iterable[str] = (),
    name: str = SIGNATURE_FILE,
) -> bytes:
    """Return the payload bytes once ``threshold`` distinct trusted keys signed their PAE.

    ``PAE = DSSEv1 SP len(type) SP type SP len(payload) SP payload``; what an envelope says of its
    keys is not believed. A ``revoked`` key (whatever ``read_key`` reads) counts for nothing, also
    where it is trusted. Raises ``DeviceError`` BAD SIGNATURE; nothing of the payload is parsed.
    """
    try:
        outer = json.loads(envelope)
        payload = base64.b64decode(outer["payload"], validate=True)
        signatures = {base64.b64decode(s["sig"], validate=True) for s in outer["signatures"]}
        kind = outer["payloadType"].encode()
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DeviceError("BAD SIGNATURE", f"{name} is not a DSSE envelope") from None
    if len(signatures) > MOST_SIGNATURES or kind != PAYLOAD_TYPE.encode():
        raise DeviceError("BAD SIGNATURE", f"{name} is not an envelope of this kind")
    gone = frozenset(map(canonical_key, revoked))
    keys = {fingerprint_of(key): key for key in trusted if not _weak(key)}
    signers = {
        known
        for known, key in keys.items()
        if known not in gone and any(_holds(key, each, message) for each in signatures)
    }
    if len(signers) < max(threshold, 1):
        raise _unsigned(len(signers), max(threshold, 1), name, _revoked(gone, signatures, message))
    return payload


def _holds(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _revoked(gone: Iterable[str], signatures: Iterable[bytes], message: bytes) -> list[str]:
    """Return the revoked keys that signed, for the reason alone."""
    given = list(signatures)
    return [text for text in sorted(gone) if any(_holds(read_key(text), s, message) for s in given)]


def _unsigned(found: int, needed: int, name: str, revoked: Sequence[str]) -> DeviceError:
    if revoked:
        return DeviceError("BAD SIGNATURE", f"{name} is signed by a revoked key, {revoked[0]}")
    if needed == 1:
        return DeviceError("BAD SIGNATURE", f"no trusted key signed {name}")
    return DeviceError("BAD SIGNATURE", f"{found} of {needed} needed trusted keys signed {name}")
