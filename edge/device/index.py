"""What a publication offers and takes back, as its members signed it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .errors import DeviceError
from .names import INDEX_TYPE, STATEMENT_TYPE, are_plain
from .store import Withdrawal

FULL_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
FOLDER_DIGITS = 12
"""Hex digits of the digest in the name of a published bundle's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One published bundle: its digest, where it lies, and the bytes of its files."""

    version: int
    digest: str
    folder: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The predicate of ``index.sig``; ``digest`` is that of the signed bytes."""

    name: str
    sequence: int
    created: datetime
    expires: datetime
    offers: tuple[Offer, ...]
    withdrawn: tuple[Withdrawal, ...]
    digest: str

    def gone(self) -> frozenset[str]:
        """Return the digests of what was withdrawn."""
        return frozenset(each.digest for each in self.withdrawn)


def folder_name(version: int, digest: str) -> str:
    """Return the name of a published bundle's folder."""
    return f"v{version}-{digest.removeprefix('sha256:')[:FOLDER_DIGITS]}"


def digest_of(payload: bytes) -> str:
    """Return ``sha256:`` and the hex digest of signed bytes."""
    return "sha256:" + hashlib.sha256(payload).hexdigest()


def parse_index(payload: bytes) -> Index:
    """Read an index whose signature holds. Raises ``DeviceError`` (BAD INDEX, FILE SET)."""
    try:
        statement = json.loads(payload)
        known = (statement["_type"], statement["predicateType"], statement["subject"])
        predicate = statement["predicate"]
        index = Index(
            name=_text_in(predicate["name"]),
            sequence=_count_in(predicate["sequence"]),
            created=_moment_in(predicate["created"]),
            expires=_moment_in(predicate["expires"]),
            offers=tuple(_offer(each) for each in predicate["bundles"]),
            withdrawn=tuple(_withdrawal(each) for each in predicate["withdrawn"]),
            digest=digest_of(payload),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DeviceError("BAD INDEX", "the signed payload is not an index") from None
    if known != (STATEMENT_TYPE, INDEX_TYPE, []):
        raise DeviceError("BAD INDEX", "the signed payload is not about a publication")
    if not are_plain([offer.folder for offer in index.offers]):
        raise DeviceError("FILE SET", "a folder in the index has no plain name, or occurs twice")
    if len({offer.version for offer in index.offers}) < len(index.offers):
        raise DeviceError("BAD INDEX", "a version occurs twice")
    return index


def _offer(entry: dict[str, Any]) -> Offer:
    return Offer(
        version=_count_in(entry["version"]),
        digest=_digest_in(entry["digest"]),
        folder=_text_in(entry["folder"]),
        size_bytes=_count_in(entry["bytes"]),
    )


def _withdrawal(entry: dict[str, Any]) -> Withdrawal:
    words = "".join(c if c.isprintable() else " " for c in _text_in(entry["reason"]))[:500]
    return Withdrawal(
        version=_count_in(entry["version"]), digest=_digest_in(entry["digest"]), reason=words
    )


def _count_in(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError("a count")
    return value


def _text_in(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value


def _digest_in(value: object) -> str:
    if not FULL_DIGEST.fullmatch(_text_in(value)):
        raise ValueError("a digest")
    return str(value)


def _moment_in(value: object) -> datetime:
    moment = datetime.fromisoformat(_text_in(value))
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment
