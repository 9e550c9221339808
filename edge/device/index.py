"""What a publication offers and takes back, as its members signed it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .errors import DeviceError
from .fields import count_in, digest_in, moment_in, text_in, truth_in
from .names import INDEX_TYPE, STATEMENT_TYPE, are_plain
from .store import Withdrawal

FOLDER_DIGITS = 12
"""Hex digits of the digest in the name of a published bundle's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One published bundle: its digest, where it lies, the bytes of its files, its origin.

    ``simulated`` is there for people; a device believes the bundle's own statement.
    """

    version: int
    digest: str
    folder: str
    size_bytes: int
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The predicate of ``index.sig``; ``digest`` is that of the signed bytes.

    ``device_digest`` is that of the ``device.py`` beside it, or '': for people, who fetch it.
    """

    name: str
    sequence: int
    created: datetime
    expires: datetime
    offers: tuple[Offer, ...]
    withdrawn: tuple[Withdrawal, ...]
    digest: str
    device_digest: str = ""

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
            name=text_in(predicate["name"], "name"),
            sequence=count_in(predicate["sequence"], "sequence"),
            created=moment_in(predicate["created"], "created"),
            expires=moment_in(predicate["expires"], "expires"),
            offers=tuple(_offer(each) for each in predicate["bundles"]),
            withdrawn=tuple(_withdrawal(each) for each in predicate["withdrawn"]),
            digest=digest_of(payload),
            device_digest=text_in(predicate.get("device_digest", ""), "device_digest"),
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
        version=count_in(entry["version"], "version"),
        digest=digest_in(entry["digest"], "digest"),
        folder=text_in(entry["folder"], "folder"),
        size_bytes=count_in(entry["bytes"], "bytes"),
        simulated=truth_in(entry.get("simulated", False), "simulated"),
    )


def _withdrawal(entry: dict[str, Any]) -> Withdrawal:
    reason = text_in(entry["reason"], "reason")
    return Withdrawal(
        version=count_in(entry["version"], "version"),
        digest=digest_in(entry["digest"], "digest"),
        reason="".join(c if c.isprintable() else " " for c in reason)[:500],
    )
