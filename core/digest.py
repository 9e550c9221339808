"""Canonical bytes and SHA-256 digests: one value, one byte string, one name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

PREFIX = "sha256:"


def canonical_bytes(value: Any) -> bytes:
    """Return ``value`` as canonical JSON: sorted keys, no spaces, UTF-8, no NaN.

    Close to RFC 8785; floats use Python's shortest repr. Raises ``ValueError`` for NaN and
    infinities and ``TypeError`` for anything that is not plain JSON.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_hex(*parts: bytes | memoryview) -> str:
    """Return ``sha256:`` and the hex digest of the concatenated parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return PREFIX + digest.hexdigest()


def digest_of(domain: str, value: Any) -> str:
    """Return the digest of a plain value, separated by ``domain`` from every other kind."""
    name = domain.encode()
    return sha256_hex(len(name).to_bytes(4, "big"), name, canonical_bytes(value))


def file_digest(path: Path) -> str:
    """Return ``sha256:`` and the hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return PREFIX + hashlib.file_digest(stream, "sha256").hexdigest()
