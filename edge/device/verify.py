"""A bundle whose every byte is checked before it is used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnxruntime as ort
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .envelope import signed_payload
from .errors import DeviceError, bad_file
from .files import digest_of_file, read_limited
from .forms import DTYPES, Form, parse_form
from .model_file import HeldModel, hold_model
from .names import (
    FORM_FILE,
    LABELS_FILE,
    MAX_ENVELOPE_BYTES,
    MODEL_FILE,
    SELFTEST_FILE,
    SIGNATURE_FILE,
    VOCABULARY_FILE,
)
from .predicting import Verified
from .selftest import selftest
from .session import TYPES, records_at_once
from .statement import check_terms, parse_statement, signed_sizes
from .texts import tokenizer_of

KEPT = (FORM_FILE, LABELS_FILE, VOCABULARY_FILE)
"""What the device itself reads; of the papers it needs the digest alone, and the questions of
the self-test are read, and hashed, again when the model's own bytes are gone."""
MOST_CLASSES = 1 << 16


def verify_bundle(
    bundle: Path,
    trusted: Sequence[Ed25519PublicKey],
    *,
    threshold: int = 1,
    allow_simulated: bool = False,
    now: datetime | None = None,
    revoked: Iterable[str] = (),
    expired: str = "refuse",
) -> Verified:
    """Check signature, type, expiry, file set, digests and self-test, in this order.

    ``threshold`` distinct ``trusted`` keys must have signed, none of them ``revoked``
    (what ``read_key`` reads); ``expired = "warn"`` makes of an expired bundle a note. Nothing
    inside the envelope is parsed before its signature holds, and the bytes that were hashed are
    the bytes that are loaded. Raises ``DeviceError``.
    """
    if not bundle.is_dir():
        raise DeviceError("MISSING", f"there is no bundle folder {bundle.name}", 66)
    if not (bundle / SIGNATURE_FILE).is_file():
        raise DeviceError("BAD SIGNATURE", f"the bundle has no {SIGNATURE_FILE}")
    envelope = read_limited(bundle / SIGNATURE_FILE, MAX_ENVELOPE_BYTES)
    payload = signed_payload(envelope, trusted, threshold, revoked=revoked)
    subjects, predicate = parse_statement(payload)
    notes = check_terms(
        predicate, allow_simulated=allow_simulated, now=now or datetime.now(UTC), expired=expired
    )
    sizes = signed_sizes(subjects, predicate)
    files, model = checked_files(bundle, subjects, sizes)

    def questions() -> bytes:
        name = SELFTEST_FILE
        return signed_bytes(bundle / name, subjects[name], sizes[name])

    return _loaded(
        files,
        model,
        questions,
        payload=payload,
        subjects=subjects,
        predicate=predicate,
        notes=notes,
    )


def checked_files(
    bundle: Path, subjects: dict[str, str], sizes: dict[str, int]
) -> tuple[dict[str, bytes], HeldModel]:
    """Check exactly the signed files, each hashed; return those that are used, and the model."""
    entries = [entry for entry in os.scandir(bundle) if entry.name != SIGNATURE_FILE]
    found = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    odd = {entry.name for entry in entries} ^ set(subjects) | (set(subjects) - found)
    if odd:
        listed = ", ".join(sorted(ascii(name) for name in odd))
        raise DeviceError("FILE SET", f"missing, added or not a plain file: {listed}")
    for name in (MODEL_FILE, LABELS_FILE, SELFTEST_FILE):
        if name not in subjects:
            raise DeviceError("FILE SET", f"the bundle has no {name}")
    files: dict[str, bytes] = {}
    for name, expected in sorted(subjects.items()):
        if name == MODEL_FILE:
            continue
        if name in KEPT:
            files[name] = signed_bytes(bundle / name, expected, sizes[name])
        else:  # in small parts: what is not kept shall leave no hole in the memory
            _require_digest(bundle / name, digest_of_file(bundle / name, sizes[name]), expected)
    return files, _held(bundle / MODEL_FILE, subjects[MODEL_FILE], sizes[MODEL_FILE])


def _held(path: Path, expected: str, most: int) -> HeldModel:
    try:
        model = hold_model(path, most)
    except DeviceError as error:
        raise _other(path) if error.code == "TOO LARGE" else error from None
    if model.digest != expected:
        model.drop()
        raise _other(path)
    return model


def signed_bytes(path: Path, expected: str, most: int) -> bytes:
    """Return a file's bytes if they have the signed SHA-256; no more than ``most`` are read."""
    try:
        content = read_limited(path, most)
    except DeviceError as error:
        if error.code != "TOO LARGE":
            raise
        raise _other(path) from None
    _require_digest(path, hashlib.sha256(content).hexdigest(), expected)
    return content


def _require_digest(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise _other(path)


def _other(path: Path) -> DeviceError:
    return DeviceError("HASH", f"{path.name} is not the file that was signed")


def _loaded(
    files: dict[str, bytes],
    model: HeldModel,
    questions: Callable[[], bytes],
    *,
    payload: bytes,
    subjects: dict[str, str],
    predicate: dict[str, Any],
    notes: tuple[str, ...],
) -> Verified:
    """Open what the checked bytes hold, and ask the self-test; the model's bytes are let go."""
    session = _session(model)
    labels = _labels(files[LABELS_FILE])
    form = parse_form(files[FORM_FILE]) if FORM_FILE in files else _form_of(session)
    tokenizer = tokenizer_of(form, files.pop(VOCABULARY_FILE, b""))
    at_once = records_at_once(form.shape, _recipe(predicate))
    agreement = selftest(
        session,
        questions(),
        form,
        tokenizer,
        classes=len(labels),
        at_once=at_once,
        least=float(predicate["selftest_min_agreement"]),
    )
    return Verified(
        digest="sha256:" + hashlib.sha256(payload).hexdigest(),
        predicate=predicate,
        subjects=subjects,
        session=session,
        form=form,
        labels=labels,
        tokenizer=tokenizer,
        at_once=at_once,
        selftest_agreement=agreement,
        notes=notes,
    )


def _session(model: HeldModel) -> ort.InferenceSession:
    try:
        session = model.open()
        given = session.get_inputs()
    except Exception as error:  # the runtime's exceptions have no common base of their own
        raise DeviceError("MODEL", f"the runtime cannot load it: {type(error).__name__}") from None
    if len(given) != 1 or given[0].type not in TYPES or len(session.get_outputs()) < 1:
        raise DeviceError("MODEL", "it does not read one array of records")
    return session


def _form_of(session: ort.InferenceSession) -> Form:
    """Return the form of a bundle that has no input.json: arrays as the graph reads them."""
    given = session.get_inputs()[0]
    shape = tuple(given.shape[1:])
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise bad_file(FORM_FILE, "is missing, and the model does not tell a record's shape")
    dtype = TYPES[given.type].__name__
    return Form(kind="array", dtype=dtype if dtype in DTYPES else "int32", shape=shape)


def _labels(raw: bytes) -> tuple[str, ...]:
    try:
        classes = json.loads(raw)["classes"]
        if not isinstance(classes, list) or not 0 < len(classes) <= MOST_CLASSES:
            raise ValueError("classes")
        if not all(isinstance(name, str) for name in classes):
            raise ValueError("names")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise bad_file(LABELS_FILE, "does not name the classes") from None
    return tuple(classes)


def _recipe(predicate: dict[str, Any]) -> str:
    gate = predicate.get("gate")
    return str(gate.get("recipe", "")) if isinstance(gate, dict) else ""
