"""The signed index of a publication: read from its folder, and written as the bytes to sign."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..core.digest import canonical_bytes
from ..core.errors import InvalidInput, MissingInput, Refused
from .device import INDEX_TYPE, STATEMENT_TYPE, DeviceError
from .device.envelope import signed_payload
from .device.files import read_limited
from .device.index import Index, parse_index
from .device.names import INDEX_FILE, MAX_ENVELOPE_BYTES


def read_index(folder: Path, believed: Sequence[Ed25519PublicKey]) -> Index:
    """Return the index once one of these keys signed it; an expired one too.

    Raises ``MissingInput`` and ``Refused``.
    """
    if not (folder / INDEX_FILE).exists():
        raise MissingInput(
            f"{folder} is no publication: it has no {INDEX_FILE}",
            cure="`collegium edge index FOLDER BUNDLE --key PEM` makes one",
        )
    try:
        envelope = read_limited(folder / INDEX_FILE, MAX_ENVELOPE_BYTES)
        return parse_index(signed_payload(envelope, believed, 1, name=INDEX_FILE))
    except DeviceError as error:
        raise Refused(
            str(error),
            why="a publication is continued by those who signed it",
            cure="name the public key of the member who signed last: `collegium edge index` and "
            "`withdraw` take it as --trusted PEM",
        ) from None


def unchecked_index(folder: Path) -> Index | None:
    """Return the index whoever signed it, None where there is none: to number the next version.

    Raises ``InvalidInput`` for a file that is no index.
    """
    if not (folder / INDEX_FILE).is_file():
        return None
    try:
        envelope = json.loads(read_limited(folder / INDEX_FILE, MAX_ENVELOPE_BYTES))
        return parse_index(base64.b64decode(envelope["payload"], validate=True))
    except (DeviceError, ValueError, KeyError, TypeError):
        raise InvalidInput(f"{folder / INDEX_FILE} is not an index") from None


def index_bytes(index: Index) -> bytes:
    """Return the in-toto statement of an index that is signed: canonical JSON."""
    predicate = {
        "name": index.name,
        "sequence": index.sequence,
        "created": index.created.astimezone(UTC).isoformat(),
        "expires": index.expires.astimezone(UTC).isoformat(),
        "device_digest": index.device_digest,
        "bundles": [
            {
                "version": offer.version,
                "digest": offer.digest,
                "folder": offer.folder,
                "bytes": offer.size_bytes,
                "simulated": offer.simulated,
            }
            for offer in sorted(index.offers, key=lambda offer: offer.version)
        ],
        "withdrawn": [
            {"version": each.version, "digest": each.digest, "reason": each.reason}
            for each in index.withdrawn
        ],
    }
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [],
            "predicateType": INDEX_TYPE,
            "predicate": predicate,
        }
    )
