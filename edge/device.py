"""Verify a signed bundle and predict with it: one plain script for a device.

Needs Python 3.11, numpy, onnxruntime and cryptography; neither torch nor Collegium.

    python device.py verify BUNDLE --key PEM [--allow-simulated] [--json]
    python device.py predict BUNDLE INPUT --key PEM [--allow-simulated] [--json]

INPUT is a .npy or .npz file, or a .csv of numbers: one raw record, or several.
Exit codes: 0 done, 64 usage, 65 bad input, 66 missing, 77 refused.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnxruntime as ort
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:collegium:bundle:v1"
SIGNATURE_FILE = "bundle.sig"
MAX_ENVELOPE_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 30
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
TERMS = frozenset(
    ("name", "version", "expires", "simulated", "minimum_runtime", "selftest_min_agreement")
)
SIMULATED = "simulated: no privacy guarantee"


class DeviceError(Exception):
    """A named refusal: ``code`` in words, ``reason``, and the exit code of the process."""

    def __init__(self, code: str, reason: str, exit_code: int = 77) -> None:
        self.code, self.reason, self.exit_code = code, reason, exit_code
        super().__init__(f"{code}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A bundle whose every byte was checked: predicate, file bytes, a session from these bytes."""

    predicate: dict[str, Any]
    files: dict[str, bytes]
    session: ort.InferenceSession
    labels: tuple[str, ...]
    selftest_agreement: float


def load_key(path: Path) -> Ed25519PublicKey:
    """Read the trusted public key (PEM); raises ``DeviceError``."""
    try:
        key = load_pem_public_key(_read(path, MAX_ENVELOPE_BYTES))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise DeviceError("BAD KEY", f"{path.name} is not an Ed25519 public key in PEM", 65)
    return key


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
    envelope = _read(bundle / SIGNATURE_FILE, MAX_ENVELOPE_BYTES)
    subjects, predicate = _statement(_signed_payload(envelope, trusted, threshold))
    _check_terms(predicate, allow_simulated=allow_simulated, now=now or datetime.now(UTC))
    files = _checked_files(bundle, subjects)
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


def predict(verified: Verified, x: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the label of each record and the probabilities (n, classes) of raw ``x``.

    ``x`` is one record or (n, ...) records, as the reader gives them. Raises ``DeviceError``.
    """
    given = verified.session.get_inputs()[0]
    shape = tuple(given.shape[1:])
    if x.shape == shape:
        x = x[None]
    numbers = x.dtype.kind in "fiub" and bool(np.isfinite(x).all())
    if x.shape[1:] != shape or len(x) == 0 or not numbers:
        raise DeviceError("BAD INPUT", f"records must be finite numbers of shape {shape}", 65)
    logits = infer(verified.session, x)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = shifted / shifted.sum(axis=1, keepdims=True)
    return [verified.labels[index] for index in chances.argmax(axis=1)], chances


def open_session(model: bytes) -> ort.InferenceSession:
    """Return a session on these ONNX bytes: CPU, one thread, the runtime's warnings hushed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def infer(session: ort.InferenceSession, x: np.ndarray) -> np.ndarray:
    """Return the logits (n, classes) of raw records ``x`` (n, ...)."""
    name = session.get_inputs()[0].name
    return np.asarray(session.run(None, {name: x.astype(np.float32)})[0])


def read_input(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read raw records from .npy, .npz (its ``x``, or its only array) or .csv (one per row)."""
    raw = _read(path, MAX_FILE_BYTES)
    try:
        if path.suffix == ".csv":
            return _csv(raw.decode(), shape)
        loaded = np.load(io.BytesIO(raw), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        return (
            loaded["x"]
            if "x" in loaded.files or len(loaded.files) != 1
            else loaded[loaded.files[0]]
        )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DeviceError("BAD INPUT", f"{path.name} cannot be read: {error}", 65) from None


def _csv(text: str, shape: tuple[int, ...]) -> np.ndarray:
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    if rows and not _numeric(rows[0]):  # a header
        rows = rows[1:]
    return np.array([[float(cell) for cell in row] for row in rows]).reshape(-1, *shape)


def _numeric(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def _signed_payload(envelope: bytes, trusted: Sequence[Ed25519PublicKey], threshold: int) -> bytes:
    """Return the payload bytes once ``threshold`` distinct trusted keys signed their PAE."""
    try:
        outer = json.loads(envelope)
        payload = base64.b64decode(outer["payload"], validate=True)
        signatures = [base64.b64decode(s["sig"], validate=True) for s in outer["signatures"]]
        kind = outer["payloadType"]
        message = b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DeviceError("BAD SIGNATURE", "bundle.sig is not a DSSE envelope") from None
    signers = {
        key.public_bytes_raw()
        for key in trusted
        if any(_holds(key, s, message) for s in signatures)
    }
    if len(signers) < max(threshold, 1) or kind != PAYLOAD_TYPE:
        raise DeviceError("BAD SIGNATURE", "the trusted key did not sign this bundle")
    return payload


def _holds(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _statement(payload: bytes) -> tuple[dict[str, str], dict[str, Any]]:
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


def _check_terms(predicate: dict[str, Any], *, allow_simulated: bool, now: datetime) -> None:
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


def _checked_files(bundle: Path, subjects: dict[str, str]) -> dict[str, bytes]:
    """Return the bytes of exactly the signed files, each read once and hashed."""
    entries = [entry for entry in os.scandir(bundle) if entry.name != SIGNATURE_FILE]
    found = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    odd = {entry.name for entry in entries} ^ set(subjects) | (set(subjects) - found)
    if odd:
        listed = ", ".join(sorted(ascii(name) for name in odd))
        raise DeviceError("FILE SET", f"missing, added or not a plain file: {listed}")
    files: dict[str, bytes] = {}
    for name, expected in sorted(subjects.items()):
        files[name] = _read(bundle / name, MAX_FILE_BYTES)
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


def _read(path: Path, limit: int) -> bytes:
    """Return a file's bytes, at most ``limit``."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise DeviceError("MISSING", f"there is no file {path.name}", 66) from None
    except OSError as error:
        raise DeviceError("MISSING", f"{path.name} cannot be read: {error.strerror}", 66) from None
    if len(raw) > limit:
        raise DeviceError("TOO LARGE", f"{path.name} has more than {limit} bytes")
    return raw


class _Parser(argparse.ArgumentParser):
    """Usage errors end with 64, as everywhere in Collegium."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Verify a signed bundle, predict with it.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, help_text in (("verify", "check a bundle"), ("predict", "verify, then predict")):
        command = verbs.add_parser(verb, help=help_text)
        command.add_argument("bundle", type=Path, metavar="BUNDLE")
        if verb == "predict":
            command.add_argument("input", type=Path, metavar="INPUT")
        command.add_argument("--key", type=Path, required=True, metavar="PEM",
                             help="trusted public key, obtained out of band")  # fmt: skip
        command.add_argument("--allow-simulated", action="store_true",
                             help="accept a bundle from a simulation")  # fmt: skip
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _run(options: argparse.Namespace) -> dict[str, Any]:
    verified = verify_bundle(
        options.bundle, [load_key(options.key)], allow_simulated=options.allow_simulated
    )
    predicate = verified.predicate
    answer: dict[str, Any] = {
        "ok": True,
        "name": predicate["name"],
        "version": predicate["version"],
        "expires": predicate["expires"],
        "simulated": predicate["simulated"],
        "selftest_agreement": verified.selftest_agreement,
        "note": SIMULATED if predicate["simulated"] else "",
    }
    if options.verb == "predict":
        shape = tuple(verified.session.get_inputs()[0].shape[1:])
        labels, chances = predict(verified, read_input(options.input, shape))
        answer["labels"] = labels
        answer["probabilities"] = [[round(float(p), 6) for p in row] for row in chances]
    return answer


def _show(answer: dict[str, Any]) -> None:
    print(f"verified: {answer['name']}, version {answer['version']}, until {answer['expires']}")
    print(f"self-test agreement {answer['selftest_agreement']:.3f}")
    if answer["note"]:
        print(answer["note"])
    for label, chances in zip(
        answer.get("labels", ()), answer.get("probabilities", ()), strict=True
    ):
        print(f"{label}\t{max(chances):.4f}")


def main(arguments: Sequence[str] | None = None, *, prog: str = "device.py") -> int:
    """Run one verb and return its exit code; ``prog`` is the name in usage lines."""
    options = _parser(prog).parse_args(arguments)
    try:
        answer = _run(options)
    except DeviceError as error:
        if options.json:
            print(json.dumps({"ok": False, "code": error.code, "reason": error.reason}))
        else:
            print(f"refused: {error}" if error.exit_code == 77 else str(error), file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(answer))
    else:
        _show(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
