"""What the signature says: file digests and terms."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import onnxruntime as ort

from .errors import DeviceError
from .names import PLAIN_NAME, PREDICATE_TYPE, SIGNATURE_FILE, SIMULATED, STATEMENT_TYPE, TERMS


def parse_statement(payload: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """Return file digests by name, and the predicate."""
    try:
        statement = json.loads(payload)
        predicate = statement["predicate"]
        names = [subject["name"] for subject in statement["subject"]]
        subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
        known = (statement["_type"], statement["predicateType"])
        plain = all(isinstance(n, str) and PLAIN_NAME.fullmatch(n) for n in names)
        complete = set(predicate) >= TERMS and float(predicate["selftest_min_agreement"]) >= 0
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DeviceError("BAD STATEMENT", "the signed payload is not a statement") from None
    if known != (STATEMENT_TYPE, PREDICATE_TYPE) or not complete:
        raise DeviceError("BAD STATEMENT", "the signed payload is not about a bundle")
    if not plain or len(names) != len(subjects) or SIGNATURE_FILE in subjects:
        raise DeviceError("FILE SET", "a file name in the bundle is not plain or occurs twice")
    return subjects, predicate


def check_terms(predicate: dict[str, Any], *, allow_simulated: bool, now: datetime) -> None:
    try:
        expires = datetime.fromisoformat(predicate["expires"])
        expired = now >= expires
        simulated = predicate["simulated"]
        needed = tuple(int(part) for part in predicate["minimum_runtime"].split("."))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeviceError("BAD STATEMENT", "expiry, runtime or origin is missing") from None
    if expired:
        raise DeviceError("EXPIRED", f"the bundle expired at {expires.isoformat()}")
    if simulated is not False and not allow_simulated:
        raise DeviceError("SIMULATED", f"{SIMULATED}; pass --allow-simulated to use it anyway")
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) < needed[:2]:
        raise DeviceError("RUNTIME", f"needs onnxruntime {predicate['minimum_runtime']} or newer")
