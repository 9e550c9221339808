"""Public keys as texts: one key has one spelling, so equal texts and equal keys are the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from . import forms
from .errors import InvalidInput, MissingInput, Refused
from .signing import fingerprint, public_from_fingerprint

_NO_KEY = (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError)
"""What reading a key can raise; the last is cryptography's answer to a compressed point."""


def ed25519_key_fault(value: str) -> str:
    """Return why a text is not the one spelling of an Ed25519 key, or ''.

    Base64 leaves two bits of the last letter unread: two texts can name one key, and a member
    would count twice.
    """
    if fault := forms.key_fault(value):
        return fault
    try:
        same = fingerprint(public_from_fingerprint(value)) == value
    except InvalidInput:
        return "is no Ed25519 key"
    return "" if same else "is an unusual spelling of another fingerprint"


def ecdsa_key_fault(value: str) -> str:
    """Return why a text is not the one OpenSSH spelling of an ECDSA P-384 key, or ''."""
    try:
        same = ssh_text(ecdsa_from_ssh(value)) == value
    except InvalidInput:
        return "is no ECDSA P-384 key in OpenSSH form"
    return "" if same else "is an unusual spelling of another OpenSSH key"


def ecdsa_from_ssh(text: str) -> ec.EllipticCurvePublicKey:
    """Return the P-384 key of an OpenSSH line; raises ``InvalidInput``."""
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except _NO_KEY:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise InvalidInput(
            "not an ECDSA P-384 public key in OpenSSH form",
            cure="`collegium site enroll` makes one",
        )
    return key


def ssh_text(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as one OpenSSH line without a comment."""
    return key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()


def load_ssh_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read an OpenSSH private key (P-384); raises ``MissingInput`` or ``InvalidInput``."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (FileNotFoundError, IsADirectoryError):
        raise MissingInput(f"there is no key file {path.name}") from None
    except _NO_KEY:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise InvalidInput(
            f"{path.name} is not an unencrypted ECDSA P-384 private key in OpenSSH form",
            cure="`collegium site enroll` makes one",
        )
    return key


def require_private(path: Path) -> None:
    """Refuse a key file that others on this machine may read or write (wider than 0600).

    Raises ``Refused``, and ``MissingInput`` when there is no such file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        raise MissingInput(f"there is no key file {path.name}") from None
    if os.name != "nt" and stat.S_IMODE(mode) & 0o077:
        raise Refused(
            f"the key file {path.name} has mode {stat.S_IMODE(mode):04o}",
            why="others on this machine can open it",
            cure=f"chmod 600 {path.name}, and make a new key if somebody may have read it",
        )
