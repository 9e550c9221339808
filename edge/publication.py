"""A publication is a folder that any web server can serve: bundles, and one signed index."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from filelock import FileLock, Timeout

from ..core.digest import canonical_bytes
from ..core.errors import InvalidInput, MissingInput, OutputExists, Refused
from ..core.files import write_atomic
from ..core.signing import fingerprint, make_envelope
from .bundle_place import new_folder, put_in_place
from .device import INDEX_TYPE, SIGNATURE_FILE, STATEMENT_TYPE, DeviceError, Verified, verify_bundle
from .device.envelope import signed_payload
from .device.files import read_limited
from .device.index import Index, Offer, folder_name, parse_index
from .device.names import INDEX_FILE, MAX_ENVELOPE_BYTES
from .device.store import Withdrawal
from .publication_page import index_json, index_page
from .single_file import device_script

VALID_DAYS = 90
"""Days for which devices take an index: the longest time that a withdrawal can be kept back."""
LOCK_FILE = ".publishing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who signs the next index and for how long; ``believed`` are keys whose signature counts."""

    keys: Sequence[Ed25519PrivateKey]
    believed: Sequence[Ed25519PublicKey]
    now: datetime
    valid_days: int


def add(
    folder: Path,
    bundle: Path,
    keys: Sequence[Ed25519PrivateKey],
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    threshold: int = 1,
    valid_days: int = VALID_DAYS,
    now: datetime | None = None,
) -> Path:
    """Verify ``bundle``, copy it into the publication, sign a new index; return the copy's folder.

    A first bundle makes the publication; the same bundle again changes nothing. ``keys`` sign
    the index; ``threshold`` of these and of ``trusted``, the other members' keys, must have
    signed the bundle, and one of them the index before. Raises ``Refused`` for a bundle that
    does not verify, has another name, or is not newer than all that was ever published, and
    ``OutputExists`` where ``folder`` holds something else.
    """
    signing = _signing(keys, trusted, now, valid_days)
    _require_publication(folder)
    with _alone(folder):
        index = read_index(folder, signing.believed) if (folder / INDEX_FILE).exists() else None
        verified = _verified(bundle, signing, threshold)
        offer = _offer(bundle, verified)
        if index and any(each.digest == offer.digest for each in index.offers):
            return folder / offer.folder
        if index:
            _require_newer(index, offer, verified)
        _copy(bundle, folder / offer.folder, verified)
        known = index or _first(verified, signing.now)
        _write(folder, replace(known, offers=(*known.offers, offer)), signing)
        return folder / offer.folder


def withdraw(
    folder: Path,
    version: int,
    reason: str,
    keys: Sequence[Ed25519PrivateKey],
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    valid_days: int = VALID_DAYS,
    now: datetime | None = None,
) -> Index:
    """Take a version back, for good: devices leave it at their next pull; return the new index.

    Its files stay, so that what was published can be looked at. Raises ``MissingInput`` for a
    version that is not offered, and ``InvalidInput`` for one without a reason.
    """
    words = " ".join(reason.split())
    if not words or not words.isprintable() or len(words) > 500:
        raise InvalidInput("a withdrawal needs a reason: one line of at most 500 characters")
    signing = _signing(keys, trusted, now, valid_days)
    with _alone(folder):
        index = read_index(folder, signing.believed)
        gone = next((offer for offer in index.offers if offer.version == version), None)
        if gone is None:
            raise MissingInput(
                f"version {version} is not offered",
                why=f"this publication offers {_listed(index)}",
            )
        entry = Withdrawal(version=version, digest=gone.digest, reason=words)
        left = tuple(offer for offer in index.offers if offer is not gone)
        changed = replace(index, offers=left, withdrawn=(*index.withdrawn, entry))
        return _write(folder, changed, signing)


def highest(folder: Path) -> int:
    """Return the highest version that ``folder`` ever published; 0 where there is none.

    To number the next one: no signature is checked here, ``add`` does that.
    """
    if not (folder / INDEX_FILE).is_file():
        return 0
    try:
        envelope = json.loads(read_limited(folder / INDEX_FILE, MAX_ENVELOPE_BYTES))
        index = parse_index(base64.b64decode(envelope["payload"], validate=True))
    except (DeviceError, ValueError, KeyError, TypeError):
        raise InvalidInput(f"{folder / INDEX_FILE} is not an index") from None
    return max((each.version for each in (*index.offers, *index.withdrawn)), default=0)


def refresh(
    folder: Path,
    keys: Sequence[Ed25519PrivateKey],
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    valid_days: int = VALID_DAYS,
    now: datetime | None = None,
) -> Index:
    """Sign the index again as it is, with a new expiry; return it."""
    signing = _signing(keys, trusted, now, valid_days)
    with _alone(folder):
        return _write(folder, read_index(folder, signing.believed), signing)


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
            cure="name the public key of the member who signed last: --trusted PEM",
        ) from None


def index_bytes(index: Index) -> bytes:
    """Return the in-toto statement of an index that is signed: canonical JSON."""
    predicate = {
        "name": index.name,
        "sequence": index.sequence,
        "created": index.created.astimezone(UTC).isoformat(),
        "expires": index.expires.astimezone(UTC).isoformat(),
        "bundles": [
            {
                "version": offer.version,
                "digest": offer.digest,
                "folder": offer.folder,
                "bytes": offer.size_bytes,
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


def _signing(
    keys: Sequence[Ed25519PrivateKey],
    trusted: Sequence[Ed25519PublicKey],
    now: datetime | None,
    valid_days: int,
) -> Signing:
    if not 1 <= valid_days <= 3650:
        raise InvalidInput("an index is valid for 1 to 3650 days")
    if not keys:
        raise InvalidInput("nobody signs the index", cure="name a private key")
    own = list({fingerprint(key.public_key()): key for key in keys}.values())
    return Signing(
        keys=own,
        believed=[*(key.public_key() for key in own), *trusted],
        now=now or datetime.now(UTC),
        valid_days=valid_days,
    )


def _verified(bundle: Path, signing: Signing, threshold: int) -> Verified:
    """Check the bundle as a device would; whether it takes a simulated one is its own affair."""
    try:
        return verify_bundle(
            bundle,
            signing.believed,
            threshold=threshold,
            allow_simulated=True,
            now=signing.now,
        )
    except DeviceError as error:
        if error.exit_code == 66:
            raise MissingInput(error.reason) from None
        raise Refused(
            f"the bundle is not published: {error}",
            why="no device would take it",
            cure="let its members sign it: `collegium edge sign BUNDLE --key PEM`"
            if error.code == "BAD SIGNATURE"
            else "make it anew: `collegium publish`",
        ) from None


def _offer(bundle: Path, verified: Verified) -> Offer:
    version = int(verified.predicate["version"])
    return Offer(
        version=version,
        digest=verified.digest,
        folder=folder_name(version, verified.digest),
        size_bytes=sum((bundle / name).stat().st_size for name in verified.subjects),
    )


def _require_newer(index: Index, offer: Offer, verified: Verified) -> None:
    name = verified.predicate["name"]
    if name != index.name:
        raise Refused(
            f"the bundle is {name!r} and the publication {index.name!r}",
            why="devices follow one name",
            cure="publish it into a folder of its own",
        )
    if offer.digest in index.gone():
        raise Refused(
            f"version {offer.version} was withdrawn",
            why="a withdrawal is for good",
            cure="publish a bundle with a higher version",
        )
    highest = max(each.version for each in (*index.offers, *index.withdrawn))
    if offer.version <= highest:
        raise Refused(
            f"version {offer.version} is not newer than {highest}, which was published",
            why="devices never go to an older version",
            cure=f"make the bundle anew with version {highest + 1}",
        )


def _first(verified: Verified, now: datetime) -> Index:
    name = str(verified.predicate["name"])
    return Index(
        name=name, sequence=0, created=now, expires=now, offers=(), withdrawn=(), digest=""
    )


def _copy(bundle: Path, target: Path, verified: Verified) -> None:
    """Copy the signed files and the signature, whole or not at all."""
    with new_folder(target) as fresh:
        for name in (*verified.subjects, SIGNATURE_FILE):
            write_atomic(fresh / name, (bundle / name).read_bytes())
        fresh.chmod(0o755)
        if target.exists():  # of an earlier try that ended before its index
            shutil.rmtree(target)
        put_in_place(fresh, target)


def _write(folder: Path, index: Index, signing: Signing) -> Index:
    """Sign the next index; it comes last, for it is all that devices believe."""
    following = replace(
        index,
        sequence=index.sequence + 1,
        created=signing.now,
        expires=signing.now + timedelta(days=signing.valid_days),
    )
    payload = index_bytes(following)
    write_atomic(folder / "device.py", device_script().encode())
    write_atomic(folder / "index.json", index_json(following))
    write_atomic(folder / "index.html", index_page(following))
    write_atomic(folder / INDEX_FILE, make_envelope(payload, list(signing.keys)))
    return parse_index(payload)


def _require_publication(folder: Path) -> None:
    """Raise ``OutputExists`` for a folder that holds anything else."""
    if not folder.exists() or (folder / INDEX_FILE).is_file():
        return
    others = [p for p in folder.iterdir() if p.name != LOCK_FILE] if folder.is_dir() else [folder]
    if any(not _is_ours(path) for path in others):
        raise OutputExists(
            f"{folder} exists and is no publication",
            why="what lies there would be served with the bundles",
            cure="name another folder",
        )


def _is_ours(path: Path) -> bool:
    """Return whether a first try that was cut off left this."""
    known = {"device.py", "index.json", "index.html"}
    return path.name in known or (path / SIGNATURE_FILE).is_file() or path.name.startswith(".v")


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Keep a second publisher out of this folder for the moment."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK_FILE, timeout=10):
            yield
    except Timeout:
        raise Refused(
            f"{folder} is being published into", cure="try again when that is done"
        ) from None


def _listed(index: Index) -> str:
    versions = [str(offer.version) for offer in index.offers]
    return f"version {', '.join(versions)}" if versions else "none"
