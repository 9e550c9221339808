"""A bundle whose every byte is checked before it is used."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .envelope import signed_payload
from .errors import DeviceError
from .files import read_limited
from .names import MAX_ENVELOPE_BYTES, MAX_FILE_BYTES, SIGNATURE_FILE
from .session import infer, open_session
from .statement import check_terms, parse_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A bundle whose every byte was checked: predicate, file bytes, a session from these bytes."""

    predicate: dict[str, Any]
    files: dict[str, bytes]
    session: ort.InferenceSession
    labels: tuple[str, ...]
    selftest_agreement: float


def verify_bundle(
    bundle: Path,
    trusted: Sequence[Ed25519PublicKey],
    *,
    threshold: int = 1,
    allow_simulated: bool = False,
    now: datetime | None = None,
) -> Verified:
    """Check signature, type, expiry, file set, digests and self-test, in this order.

    Nothing inside the envelope is parsed before its signature holds, and the bytes that were
    hashed are the bytes that are loaded. Raises ``DeviceError``.
    """
    if not bundle.is_dir():
        raise DeviceError("MISSING", f"there is no bundle folder {bundle.name}", 66)
    if not (bundle / SIGNATURE_FILE).is_file():
        raise DeviceError("BAD SIGNATURE", f"the bundle has no {SIGNATURE_FILE}")
    envelope = read_limited(bundle / SIGNATURE_FILE, MAX_ENVELOPE_BYTES)
    subjects, predicate = parse_statement(signed_payload(envelope, trusted, threshold))
    check_terms(predicate, allow_simulated=allow_simulated, now=now or datetime.now(UTC))
    files = checked_files(bundle, subjects)
    try:
        session = open_session(files["model.onnx"])
    except Exception as error:  # the runtime's exceptions have no common base of their own
        raise DeviceError("MODEL", f"the runtime cannot load it: {type(error).__name__}") from None
    agreement = _selftest(session, files, float(predicate["selftest_min_agreement"]))
    labels = tuple(str(label) for label in json.loads(files["labels.json"])["classes"])
    return Verified(
        predicate=predicate,
        files=files,
        session=session,
        labels=labels,
        selftest_agreement=agreement,
    )


def checked_files(bundle: Path, subjects: dict[str, str]) -> dict[str, bytes]:
    """Return the bytes of exactly the signed files, each read once and hashed."""
    entries = [entry for entry in os.scandir(bundle) if entry.name != SIGNATURE_FILE]
    found = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    odd = {entry.name for entry in entries} ^ set(subjects) | (set(subjects) - found)
    if odd:
        listed = ", ".join(sorted(ascii(name) for name in odd))
        raise DeviceError("FILE SET", f"missing, added or not a plain file: {listed}")
    files: dict[str, bytes] = {}
    for name, expected in sorted(subjects.items()):
        files[name] = read_limited(bundle / name, MAX_FILE_BYTES)
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise DeviceError("HASH", f"{name} is not the file that was signed")
    return files


def _selftest(session: ort.InferenceSession, files: dict[str, bytes], least: float) -> float:
    """Return the share of self-test vectors whose answer is the expected one."""
    try:
        vectors = np.load(io.BytesIO(files["selftest.npz"]), allow_pickle=False)
        x, expected = vectors["x"], vectors["labels"]
        logits = infer(session, x)
        agreement = float((logits.argmax(axis=1) == expected).mean())
    except Exception as error:  # whatever the runtime raises, the self-test did not pass
        raise DeviceError("SELFTEST", f"it did not run: {type(error).__name__}") from None
    if not agreement >= least:
        raise DeviceError("SELFTEST", f"agreement {agreement:.3f} is below {least:.3f}")
    return agreement
