"""One member adds a signature to a bundle or an index that others have made."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..core.digest import canonical_bytes
from ..core.errors import MissingInput, Refused
from ..core.files import write_atomic
from ..core.signing import fingerprint, make_envelope, pae, verify
from .device import SIGNATURE_FILE, DeviceError
from .device.envelope import read_key
from .device.files import read_limited
from .device.index import digest_of, parse_index
from .device.names import INDEX_FILE, MAX_ENVELOPE_BYTES, PAYLOAD_TYPE
from .device.statement import parse_statement, signed_sizes
from .device.verify import checked_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Signable:
    """What lies at a path to be signed: its file, the exact bytes, and who signed them already.

    ``facts`` say in words what a signature stands for; ``signers`` are the keys whose signature
    holds; ``entries`` are theirs, one for each, and those that name their key in another way.
    """

    path: Path
    payload: bytes
    facts: tuple[tuple[str, str], ...]
    signers: tuple[str, ...]
    entries: tuple[dict[str, Any], ...]


def read_signable(path: Path) -> Signable:
    """Read a bundle folder, a publication folder, or one of their .sig files.

    Of a bundle each file is compared with what is signed: nobody signs what differs from what
    lies there. Raises ``MissingInput``, and ``Refused`` for anything that is not well-formed.
    """
    file = _file_of(path)
    try:
        envelope = read_limited(file, MAX_ENVELOPE_BYTES)
        payload, entries = _opened(envelope)
        index = file.name == INDEX_FILE
        facts = _index_facts(payload) if index else _bundle_facts(file.parent, payload)
    except DeviceError as error:
        raise Refused(f"{file.name} is not signed: {error}") from None
    message = pae(PAYLOAD_TYPE, payload)
    good = {str(entry["keyid"]): entry for entry in entries if _holds(entry, message)}
    others = [entry for entry in entries if str(entry.get("keyid")) not in good]
    return Signable(
        path=file,
        payload=payload,
        facts=(*facts, ("digest", digest_of(payload))),
        signers=tuple(good),
        entries=(*good.values(), *others),
    )


def countersign(
    found: Signable, key: Ed25519PrivateKey, trusted: Sequence[Ed25519PublicKey] = ()
) -> bool:
    """Add ``key``'s signature to the file; return whether that changed anything.

    One signature stays per key. With ``trusted``, one of these must have signed before. Raises
    ``Refused``.
    """
    before = {fingerprint(each) for each in trusted}
    if before and not before & set(found.signers):
        raise Refused(
            "none of the trusted keys has signed this",
            why="it may not come from the member whom you believe",
            cure="ask that member for the file, and compare the digest with theirs",
        )
    own = fingerprint(key.public_key())
    if own in found.signers:
        return False
    new = json.loads(make_envelope(found.payload, [key]))
    others = [entry for entry in found.entries if entry.get("keyid") != own]
    envelope = canonical_bytes(new | {"signatures": [*others, *new["signatures"]]})
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise Refused(
            f"{found.path.name} would have {len(envelope):,} bytes",
            why=f"no device reads more than {MAX_ENVELOPE_BYTES:,}",
            cure="ask its publisher for a shorter one",
        )
    write_atomic(found.path, envelope)
    return True


def _file_of(path: Path) -> Path:
    if path.is_dir():
        names = [name for name in (INDEX_FILE, SIGNATURE_FILE) if (path / name).is_file()]
        if len(names) == 1:
            return path / names[0]
    elif path.is_file() and path.name in (INDEX_FILE, SIGNATURE_FILE):
        return path
    raise MissingInput(
        f"there is nothing to sign at {path}",
        why=f"a bundle holds {SIGNATURE_FILE}, a publication {INDEX_FILE}",
        cure="name one of the two",
    )


def _opened(envelope: bytes) -> tuple[bytes, list[dict[str, Any]]]:
    """Return the payload and the signature entries, of which nothing is believed yet."""
    try:
        outer = json.loads(envelope)
        if outer["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(outer)
        entries = [dict(entry) for entry in outer["signatures"]]
        return base64.b64decode(outer["payload"], validate=True), entries
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DeviceError("BAD SIGNATURE", "it is not a DSSE envelope of this kind") from None


def _holds(entry: dict[str, Any], message: bytes) -> bool:
    try:
        key = read_key(str(entry["keyid"])) if str(entry["keyid"]).startswith("ed25519:") else None
        signature = base64.b64decode(entry["sig"], validate=True)
    except (DeviceError, ValueError, KeyError, TypeError):
        return False
    return key is not None and verify(key, signature, message)


def _bundle_facts(folder: Path, payload: bytes) -> list[tuple[str, str]]:
    subjects, predicate = parse_statement(payload)
    checked_files(folder, subjects, signed_sizes(subjects, predicate))
    simulated = predicate["simulated"] is not False
    return [
        ("what", "a bundle for devices"),
        ("name", str(predicate["name"])),
        ("version", str(predicate["version"])),
        ("until", str(predicate["expires"])),
        ("guarantee", "none: simulated" if simulated else "as privacy.json says"),
        ("files", f"{len(subjects)}, each compared with what is signed"),
    ]


def _index_facts(payload: bytes) -> list[tuple[str, str]]:
    index = parse_index(payload)
    offers = [
        f"{offer.version} ({offer.digest}){', simulated: no guarantee' if offer.simulated else ''}"
        for offer in index.offers
    ]
    gone = [f"{each.version}: {each.reason}" for each in index.withdrawn]
    return [
        ("what", "the index of a publication"),
        ("name", index.name),
        ("index", str(index.sequence)),
        ("until", index.expires.isoformat()),
        ("device.py", index.device_digest or "not named"),
        *(("offers", text) for text in offers),
        *(("withdraws", text) for text in gone),
    ]
