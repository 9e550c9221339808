"""A bundle is a plain folder whose one signature covers every byte; it appears whole or not."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from ..core.digest import canonical_bytes, sha256_hex
from ..core.errors import InvalidInput, OutputExists, Refused
from ..core.files import write_atomic
from ..core.signing import fingerprint, make_envelope
from .bundle_place import new_folder, put_in_place
from .device import PREDICATE_TYPE, SIGNATURE_FILE, STATEMENT_TYPE
from .device.names import are_plain

VALID_DAYS = 365
MINIMUM_RUNTIME = "1.20"  # of onnxruntime: opset 20 and every operator that we export
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SECRET = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the signature says about the files, besides their digests.

    ``version`` starts at 1 and only ever grows, so that a device can refuse an older one;
    ``previous`` is the digest of the bundle before, or ''. ``created`` has a time zone; it and
    ``valid_days`` give the expiry, told in UTC; ``simulated`` is true whenever noise was seeded.
    Raises ``InvalidInput`` for terms that no device would take.
    """

    name: str
    version: int
    created: datetime
    simulated: bool
    opset: int
    lineage: Mapping[str, Any]
    gate: Mapping[str, Any]
    selftest_min_agreement: float
    valid_days: int = VALID_DAYS
    previous: str = ""
    minimum_runtime: str = field(default=MINIMUM_RUNTIME)

    def __post_init__(self) -> None:
        faults = {
            "version must be 1 or more": self.version < 1,
            "valid_days must be 1 or more": self.valid_days < 1,
            "created needs a time zone": self.created.tzinfo is None,
            "previous must be '' or a digest": bool(self.previous)
            and not _DIGEST.fullmatch(self.previous),
            "selftest_min_agreement must be between 0 and 1": not (
                0 <= self.selftest_min_agreement <= 1
            ),
        }
        if found := [fault for fault, is_so in faults.items() if is_so]:
            raise InvalidInput(f"these are no terms of a bundle: {'; '.join(found)}")

    def predicate(self) -> dict[str, Any]:
        """Return the in-toto predicate as plain values."""
        expires = self.created + timedelta(days=self.valid_days)
        return {
            "name": self.name,
            "version": self.version,
            "previous": self.previous,
            "created": self.created.astimezone(UTC).isoformat(),
            "expires": expires.astimezone(UTC).isoformat(),
            "simulated": self.simulated,
            "minimum_runtime": self.minimum_runtime,
            "opset": self.opset,
            "lineage": dict(self.lineage),
            "gate": dict(self.gate),
            "selftest_min_agreement": self.selftest_min_agreement,
        }


def write_bundle(
    out: Path, files: Mapping[str, bytes], terms: Terms, keys: Sequence[Ed25519PrivateKey]
) -> str:
    """Write, sign and put the folder in place by one rename; return the bundle's digest.

    The digest is that of the signed statement, so it covers every file. Each of ``keys`` signs
    (a device asks for k of those it trusts); their order changes nothing. An older bundle at
    ``out`` is replaced; the same inputs give the same bytes. Raises ``OutputExists`` when
    ``out`` holds anything else, ``InvalidInput`` for a file name that is not plain and for no
    key or one twice, and ``Refused`` when a file holds a private key.
    """
    payload = statement(files, terms)
    signers = _signers(keys)
    _require_no_secret(files, signers)
    require_replaceable(out)
    with new_folder(out) as folder:
        for name, content in sorted(files.items()):
            write_atomic(folder / name, content)
        write_atomic(folder / SIGNATURE_FILE, make_envelope(payload, signers))
        folder.chmod(0o755)
        put_in_place(folder, out)
    return sha256_hex(payload)


def statement(files: Mapping[str, bytes], terms: Terms) -> bytes:
    """Return the in-toto statement that is signed: canonical JSON, one subject per file.

    Its predicate holds the terms, and each file's size, so that a device knows before it asks.
    """
    if not are_plain(list(files)) or SIGNATURE_FILE in files:
        raise InvalidInput(
            "these are not names for the files of a bundle: "
            + ", ".join(sorted(ascii(name) for name in files)),
            why="each must be one plain file on every system, and none is the signature",
        )
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
                for name, content in sorted(files.items())
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": terms.predicate()
            | {"sizes": {name: len(content) for name, content in files.items()}},
        }
    )


def _signers(keys: Sequence[Ed25519PrivateKey]) -> list[Ed25519PrivateKey]:
    """Return the keys in one order; raises ``InvalidInput`` for none, or for one twice."""
    found = {fingerprint(key.public_key()): key for key in keys}
    if not found or len(found) != len(keys):
        raise InvalidInput(
            f"{len(keys)} keys, {len(found)} of them different",
            why="a bundle is signed once by each of its keys, and by one at least",
            cure="name each key once",
        )
    return [found[name] for name in sorted(found)]


def _require_no_secret(files: Mapping[str, bytes], keys: Sequence[Ed25519PrivateKey]) -> None:
    """Raise ``Refused`` when a file holds a private key: whatever is in a bundle is published."""
    raw = [key.private_bytes_raw() for key in keys]
    for name, content in files.items():
        if _SECRET.search(content) or any(secret in content for secret in raw):
            raise Refused(
                f"{name} holds a private key",
                why="everything in a bundle is published",
                cure="leave the key out of the bundle, and make a new one if it was sent anywhere",
            )


def require_replaceable(out: Path) -> None:
    """Raise ``OutputExists`` unless ``out`` is absent, empty, or a bundle."""
    if not out.exists() or (out / SIGNATURE_FILE).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise OutputExists(
            f"{out} exists and is not a bundle",
            why="nothing but an older bundle is ever replaced",
            cure="name another folder",
        )


def json_bytes(value: Any) -> bytes:
    """Return readable JSON with one form per value: sorted keys, two spaces, final newline."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def npz_bytes(**arrays: NDArray[np.generic]) -> bytes:
    """Return an uncompressed .npz whose bytes depend on the arrays alone: no time stamps."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the same on every platform
            archive.writestr(entry, member.getvalue())
    return stream.getvalue()
