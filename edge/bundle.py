"""A bundle is a plain folder whose one signature covers every byte; it appears whole or not."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
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
from ..core.errors import InvalidInput, OutputExists
from ..core.files import sync_folder, write_atomic
from ..core.signing import make_envelope
from .device import PLAIN_NAME, PREDICATE_TYPE, SIGNATURE_FILE, STATEMENT_TYPE

VALID_DAYS = 365
MINIMUM_RUNTIME = "1.20"  # of onnxruntime: opset 20 and every operator that we export


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the signature says about the files, besides their digests.

    ``version`` only ever grows, so that a device can refuse an older one; ``previous`` is the
    digest of the bundle before, or ''. ``created`` and ``expires`` are UTC; ``simulated`` is
    true whenever noise was seeded.
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

    The digest is that of the signed statement, so it covers every file. An older bundle at
    ``out`` is replaced; the same inputs give the same bytes. Raises ``OutputExists`` when
    ``out`` holds anything else, and ``InvalidInput`` for a file name that is not plain.
    """
    payload = statement(files, terms)
    require_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, content in sorted(files.items()):
            write_atomic(folder / name, content)
        write_atomic(folder / SIGNATURE_FILE, make_envelope(payload, keys))
        folder.chmod(0o755)
        _put_in_place(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return sha256_hex(payload)


def statement(files: Mapping[str, bytes], terms: Terms) -> bytes:
    """Return the in-toto statement that is signed: canonical JSON, one subject per file."""
    for name in files:
        if not PLAIN_NAME.fullmatch(name) or name == SIGNATURE_FILE:
            raise InvalidInput(f"'{name}' is not a name for a file of a bundle")
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
                for name, content in sorted(files.items())
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": terms.predicate(),
        }
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


def _put_in_place(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``; what was there stands aside until the new one is in place."""
    if not out.exists():
        folder.rename(out)
        sync_folder(out.parent)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent)) / out.name
    out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        aside.rename(out)
        raise
    finally:
        sync_folder(out.parent)
        shutil.rmtree(aside.parent, ignore_errors=True)


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
