"""Ed25519 keys, fingerprints, and DSSE envelopes: how Collegium signs and checks bytes."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .digest import canonical_bytes
from .errors import InvalidInput, MissingInput, OutputExists, Refused
from .files import sync_folder

FINGERPRINT_PREFIX = "ed25519:"
IN_TOTO = "application/vnd.in-toto+json"
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
"""Points whose order divides 8, without the bit of sign: anyone could sign for such a key.

Also in edge/device/envelope.py, which imports nothing of ours.
"""


def generate_key() -> Ed25519PrivateKey:
    """Return a fresh private key from the operating system's randomness."""
    return Ed25519PrivateKey.generate()


def save_private(key: Ed25519PrivateKey, path: Path) -> None:
    """Write a new PKCS#8 PEM that its owner alone can read (0600).

    Raises ``OutputExists``: a key is never overwritten.
    """
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    # O_EXCL with the mode: at no moment does the file exist with wider rights
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(pem)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        _name_once(partial, path)
    except FileExistsError:
        raise OutputExists(
            f"the key file {path.name} exists",
            why="a lost private key cannot be made again",
            cure="move it away or choose another name",
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def save_public(key: Ed25519PublicKey, path: Path) -> None:
    """Write the public key as SubjectPublicKeyInfo PEM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key; raises ``MissingInput`` or ``InvalidInput``."""
    try:
        key = serialization.load_pem_private_key(_pem(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _not_a_key(path, "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, "private")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key; raises ``MissingInput`` or ``InvalidInput``."""
    try:
        key = serialization.load_pem_public_key(_pem(path))
    except (ValueError, UnsupportedAlgorithm):
        raise _not_a_key(path, "public") from None
    if not isinstance(key, Ed25519PublicKey) or is_weak(key.public_bytes_raw()):
        raise _not_a_key(path, "public")
    return key


def load_or_create(path: Path) -> Ed25519PrivateKey:
    """Return the private key at ``path``, made there when there is none yet."""
    if not path.exists():
        with suppress(OutputExists):  # another process made it just now: then that is the key
            save_private(generate_key(), path)
    return load_private(path)


def fingerprint(public: Ed25519PublicKey) -> str:
    """Return ``ed25519:`` and the base64 of the 32 raw bytes; it *is* the key, not a hash."""
    return FINGERPRINT_PREFIX + base64.b64encode(public.public_bytes_raw()).decode()


def public_from_fingerprint(text: str) -> Ed25519PublicKey:
    """Return the public key that a fingerprint spells out; raises ``InvalidInput``."""
    try:
        if not text.startswith(FINGERPRINT_PREFIX):
            raise ValueError(text)
        raw = base64.b64decode(text.removeprefix(FINGERPRINT_PREFIX), validate=True)
        if is_weak(raw):
            raise ValueError(text)
        return Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error):
        raise InvalidInput(
            "not an Ed25519 fingerprint",
            why="it must read ed25519: and the base64 of 32 bytes",
            cure="copy it again from its owner",
        ) from None


def is_weak(raw: bytes) -> bool:
    """Return whether the 32 raw bytes of a public key are a point of small order."""
    return raw[:31] + bytes([raw[31] & 0x7F]) in SMALL_ORDER if len(raw) == 32 else False


def sign(key: Ed25519PrivateKey, message: bytes) -> bytes:
    """Return the 64 signature bytes (RFC 8032; deterministic)."""
    return key.sign(message)


def verify(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Return whether the signature holds; wrong lengths are simply False."""
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE v1's pre-authentication encoding, the bytes that are signed.

    ``DSSEv1 SP len(type) SP type SP len(payload) SP payload``, lengths in decimal bytes;
    https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def make_envelope(
    payload: bytes, keys: Sequence[Ed25519PrivateKey], *, payload_type: str = IN_TOTO
) -> bytes:
    """Return a DSSE envelope (canonical JSON) with one signature per key."""
    message = pae(payload_type, payload)
    signatures = [
        {
            "keyid": fingerprint(key.public_key()),
            "sig": base64.b64encode(key.sign(message)).decode(),
        }
        for key in keys
    ]
    encoded = base64.b64encode(payload).decode()
    return canonical_bytes(
        {"payload": encoded, "payloadType": payload_type, "signatures": signatures}
    )


def open_envelope(
    envelope: bytes,
    trusted: Sequence[Ed25519PublicKey],
    *,
    threshold: int = 1,
    payload_type: str = IN_TOTO,
) -> bytes:
    """Return the payload once ``threshold`` distinct trusted keys have signed it.

    ``keyid`` is not believed: every trusted key is tried, so one key twice counts once.
    Raises ``Refused``; nothing of the payload is parsed here.
    """
    try:
        outer: Any = json.loads(envelope)
        kind = outer["payloadType"]
        payload = base64.b64decode(outer["payload"], validate=True)
        signatures = [_signature(entry) for entry in outer["signatures"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("BAD SIGNATURE", why="the envelope is not a DSSE envelope") from None
    message = pae(payload_type, payload)
    signers = {
        fingerprint(key) for key in trusted if any(verify(key, s, message) for s in signatures)
    }
    if kind != payload_type or len(signers) < max(threshold, 1):
        raise Refused(
            "BAD SIGNATURE",
            why=f"{len(signers)} of {threshold} needed trusted keys signed these bytes",
            cure="check the key, then fetch the file again from its publisher",
        )
    return payload


def _signature(entry: object) -> bytes:
    return base64.b64decode(cast("Mapping[str, str]", entry)["sig"], validate=True)


def _name_once(partial: Path, path: Path) -> None:
    """Give a whole file its name; raises ``FileExistsError``, a rename would overwrite."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        partial.rename(path)


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise MissingInput(f"there is no key file {path.name}") from None


def _not_a_key(path: Path, kind: str) -> InvalidInput:
    return InvalidInput(
        f"{path.name} is not an unencrypted Ed25519 {kind} key in PEM",
        cure=f"make one with the enroll verb, or pass the {kind} half of the pair",
    )
