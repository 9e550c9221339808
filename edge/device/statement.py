"""What the signature says: file digests and terms."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import onnxruntime as ort

from .errors import DeviceError
from .names import (
    MAX_FILE_BYTES,
    PREDICATE_TYPE,
    SIGNATURE_FILE,
    SIMULATED,
    STATEMENT_TYPE,
    TERMS,
    are_plain,
)

DIGEST = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})")


def parse_statement(payload: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Return file digests by name, and the predicate, of a payload whose signature holds.

    Raises ``DeviceError``: BAD STATEMENT, and FILE SET for names that are no plain file names.
    """
    try:
        statement = json.loads(payload)
        predicate = statement["predicate"]
        names = [subject["name"] for subject in statement["subject"]]
        subjects = {str(s["name"]): s["digest"]["sha256"] for s in statement["subject"]}
        known = (statement["_type"], statement["predicateType"])
        plain = are_plain(names)
        complete = set(predicate) >= TERMS and float(predicate["selftest_min_agreement"]) >= 0
        hashed = all(DIGEST.fullmatch(digest) for digest in subjects.values())
        version = predicate["version"]
        whole = isinstance(version, int) and version >= 0 and isinstance(predicate["name"], str)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DeviceError("BAD STATEMENT", "the signed payload is not a statement") from None
    if known != (STATEMENT_TYPE, PREDICATE_TYPE) or not (complete and hashed and whole):
        raise DeviceError("BAD STATEMENT", "the signed payload is not about a bundle")
    if not plain or any(name.casefold() == SIGNATURE_FILE for name in subjects):
        raise DeviceError("FILE SET", "a file name in the bundle is not plain or occurs twice")
    return subjects, predicate


def signed_sizes(subjects: dict[str, str], predicate: dict[str, Any]) -> dict[str, int]:
    """Return the most bytes each file may have: its signed size, else ``MAX_FILE_BYTES``."""
    sizes = predicate.get("sizes", {})
    if not isinstance(sizes, dict):
        raise DeviceError("BAD STATEMENT", "the sizes of the files are not a table")
    found: dict[str, int] = {}
    for name in subjects:
        size = sizes.get(name, MAX_FILE_BYTES)
        if not isinstance(size, int) or not 0 <= size <= MAX_FILE_BYTES:
            raise DeviceError("BAD STATEMENT", f"the size of {name} is not one of a file")
        found[name] = size
    return found


def check_terms(
    predicate: dict[str, Any],
    *,
    allow_simulated: bool,
    now: datetime,
    expired: str = "refuse",
) -> tuple[str, ...]:
    """Check expiry, origin and runtime; return what a person should know all the same.

    A bundle proves that it is at least as late as when it was made, so a clock that is behind
    revives nothing. ``expired = "warn"`` is for devices without a clock. Raises ``DeviceError``.
    """
    notes: list[str] = []
    try:
        expires = datetime.fromisoformat(predicate["expires"])
        created = datetime.fromisoformat(predicate.get("created", predicate["expires"]))
        over = max(now, created) >= expires if "created" in predicate else now >= expires
        behind = "created" in predicate and created > now
        simulated = predicate["simulated"]
        needed = _release(predicate["minimum_runtime"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise DeviceError("BAD STATEMENT", "expiry, runtime or origin is missing") from None
    if over and expired != "warn":
        raise DeviceError("EXPIRED", f"the bundle expired at {expires.isoformat()}")
    if over:
        notes.append(f"expired at {expires.isoformat()}")
    if behind:
        notes.append("this device's clock is behind: the bundle was made later")
    if simulated is not False and not allow_simulated:
        raise DeviceError("SIMULATED", f"{SIMULATED}; pass --allow-simulated to use it anyway")
    if _release(ort.__version__) < needed:
        raise DeviceError("RUNTIME", f"needs onnxruntime {predicate['minimum_runtime']} or newer")
    return tuple(notes)


def _release(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version; raises ``ValueError``."""
    found = VERSION.match(text)
    if found is None:
        raise ValueError(text)
    return int(found[1]), int(found[2])
