"""The signature before anything else: keys and DSSE envelopes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .errors import DeviceError
from .files import read_limited
from .names import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE


def load_key(path: Path) -> Ed25519PublicKey:
    """Read the trusted public key (PEM); raises ``DeviceError``."""
    try:
        key = load_pem_public_key(read_limited(path, MAX_ENVELOPE_BYTES))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise DeviceError("BAD KEY", f"{path.name} is not an Ed25519 public key in PEM", 65)
    return key


def signed_payload(envelope: bytes, trusted: Sequence[Ed25519PublicKey], threshold: int) -> bytes:
    """Return the payload bytes once ``threshold`` distinct trusted keys signed their PAE."""
    try:
        outer = json.loads(envelope)
        payload = base64.b64decode(outer["payload"], validate=True)
        signatures = [base64.b64decode(s["sig"], validate=True) for s in outer["signatures"]]
        kind = outer["payloadType"]
        message = b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DeviceError("BAD SIGNATURE", "bundle.sig is not a DSSE envelope") from None
    signers = {
        key.public_bytes_raw()
        for key in trusted
        if any(_holds(key, s, message) for s in signatures)
    }
    if len(signers) < max(threshold, 1) or kind != PAYLOAD_TYPE:
        raise DeviceError("BAD SIGNATURE", "the trusted key did not sign this bundle")
    return payload


def _holds(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
