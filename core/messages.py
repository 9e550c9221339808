"""Invitation, update and their kin: canonical header, payload digest, Ed25519 signature.

The header is canonical JSON; the signature covers ``PAE(kind, header)`` (DSSE's
pre-authentication encoding) and the header holds the payload's SHA-256, so one signature
covers both. No seed is a field of any message.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .digest import canonical_bytes, sha256_hex
from .forms import digest_fault
from .signing import pae

MAX_HEADER_BYTES = 16_384

MAX_TEXT = 256
"""Characters of one field: twice the longest that we write, a digest with its prefix, and more."""

MAX_METRICS, MAX_METRIC_NAME = 32, 64

ONCE = 0
"""Rounds count from 1: round 0 is what a job may ask once, beside the training."""
EVALUATION, STATISTICS, CALIBRATION = 1, 2, 3
"""Which question of round ``ONCE`` an invitation asks: it stands in its ``attempt``."""

_JOB = re.compile(r"[0-9a-z-]{1,64}")
"""A job's id names files on both sides, so nothing that could be a path may be one."""

DECLINE_CODES = frozenset(
    f"policy-{rule}"
    for rule in ("model", "plan", "sites", "steps", "rate", "clip", "noise", "unit", "delta")
) | {
    "roster", "plan", "round", "deadline", "layout", "shape", "base", "nonfinite", "norm",
    "ledger", "budget", "cancelled", "internal",
}  # fmt: skip
"""Why a site may sit a round out: a closed list, none of which depends on its records."""


H = TypeVar("H", bound="Header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What travels: header and payload bytes as they were signed."""

    header: bytes
    signature: bytes
    payload: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes that travel."""
        return len(self.header) + len(self.signature) + len(self.payload)


class BadMessage(Exception):
    """A message that cannot be what it claims; ``code`` is a reason code of the closed list."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What every message says first; ``payload_sha256`` is filled in when it is sealed."""

    job: str
    site: str
    payload_sha256: str = ""

    def seal(self, key: Ed25519PrivateKey, payload: bytes = b"") -> Sealed:
        """Return the signed bytes of this message."""
        values = asdict(self) | {"payload_sha256": sha256_hex(payload)}
        header = canonical_bytes(values)
        return Sealed(
            header=header, signature=key.sign(pae(_kind(type(self)), header)), payload=payload
        )

    @classmethod
    def open(cls, sealed: Sealed, key: Ed25519PublicKey) -> Self:
        """Return the message once signature and payload digest hold.

        Raises ``BadMessage`` with code ``header``, ``signature``, ``schema`` or ``payload``,
        checked in this order: nothing of an unsigned header is looked at.
        """
        if len(sealed.header) > MAX_HEADER_BYTES:
            raise BadMessage("header")
        try:
            key.verify(sealed.signature, pae(_kind(cls), sealed.header))
        except InvalidSignature:
            raise BadMessage("signature") from None
        message = cls._parse(sealed.header)
        if message.payload_sha256 != sha256_hex(sealed.payload):
            raise BadMessage("payload")
        return message

    @classmethod
    def signed_bytes(cls, sealed: Sealed) -> bytes:
        """Return what the signature of such a message covers: evidence for a third party."""
        return pae(_kind(cls), sealed.header)

    @classmethod
    def _parse(cls, header: bytes) -> Self:
        try:
            values: Any = json.loads(header)
        except (ValueError, RecursionError):
            raise BadMessage("schema") from None
        known = {field.name: field for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != set(known):
            raise BadMessage("schema")
        for name, field in known.items():
            if not _TYPES[str(field.type)](values[name]):
                raise BadMessage("schema")
        if not _JOB.fullmatch(values["job"]):
            raise BadMessage("schema")
        return cls(**values)._checked()

    def _checked(self) -> Self:
        return self


def claimed_site(sealed: Sealed) -> str:
    """Return which site a message says it is from, so that its key can be looked up; else ''.

    Nothing else may be read before the signature has been checked with that key.
    """
    if len(sealed.header) > MAX_HEADER_BYTES:
        return ""
    try:
        values: Any = json.loads(sealed.header)
    except (ValueError, RecursionError):
        return ""
    name = values.get("site") if isinstance(values, dict) else None
    return name if isinstance(name, str) else ""


def _is_number(value: Any) -> bool:
    """Finite alone: one NaN in a peer's figures would make a whole run's files unwritable."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**53
    return isinstance(value, float) and math.isfinite(value)


def _is_text(value: Any, most: int = MAX_TEXT) -> bool:
    """Printable alone: JSON may hold a lone surrogate, which no UTF-8 file or message can."""
    return isinstance(value, str) and len(value) <= most and value.isprintable()


def _is_numbers(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_METRICS
        and all(
            _is_text(name, MAX_METRIC_NAME) and _is_number(number) for name, number in value.items()
        )
    )


_TYPES = {
    "str": _is_text,
    "int": lambda value: type(value) is int and abs(value) < 2**53,
    "bool": lambda value: isinstance(value, bool),
    "float": _is_number,
    "dict[str, float]": _is_numbers,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation(Header):
    """The coordinator asks a site to train; the payload is the base vector, float32.

    ``deadline`` is in seconds since the epoch; ``site_ledger_head`` is the last head of the
    site's ledger that the coordinator has seen, countersigned by this message's signature.
    """

    plan: str
    round: int
    attempt: int
    base_sha256: str
    layout: str
    deadline: float
    nonce: str
    site_ledger_head: str
    evaluate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Header):
    """A site's answer: the payload is its encoded vector (d,).

    ``metrics`` are those of the base model on the site's public test part, empty unless the
    invitation asked and the plan allows it.
    """

    round: int
    attempt: int
    base_sha256: str
    layout: str
    spec: str
    ledger_head: str
    codec: str
    metrics: dict[str, float]

    def _checked(self) -> Self:
        return _with_head(self, self.ledger_head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline(Header):
    """A site sits a round out; ``code`` is data-independent and of a closed list."""

    round: int
    attempt: int
    code: str

    def _checked(self) -> Self:
        if self.code not in DECLINE_CODES:
            raise BadMessage("schema")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Header):
    """A site says who it is and where its ledger stands; ``nonce`` is the coordinator's.

    The coordinator's own question names no ledger head.
    """

    plan: str
    nonce: str
    ledger_head: str

    def _checked(self) -> Self:
        return _with_head(self, self.ledger_head) if self.ledger_head else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Header):
    """Metrics of one model on a site's public test part."""

    model_sha256: str
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey(Header):
    """A site's noised sums over its records, once per job; the payload is (size,) float32.

    ``attempt`` says which question of round ``ONCE`` is answered, ``spec`` under which mechanism,
    ``base_sha256`` with which model (of no bytes where none is asked about).
    """

    attempt: int
    base_sha256: str
    spec: str
    ledger_head: str

    def _checked(self) -> Self:
        return _with_head(self, self.ledger_head)


def _with_head(message: H, head: str) -> H:
    """Return the message if that is a ledger's head: a digest, all zeros for an empty ledger."""
    if digest_fault(head):
        raise BadMessage("schema")
    return message


def _kind(cls: type[Header]) -> str:
    return f"application/vnd.collegium.{cls.__name__.lower()}+json"
