"""A publication is a folder that any web server can serve: bundles, and one signed index."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from filelock import FileLock, Timeout

from ..core.digest import sha256_hex
from ..core.errors import InvalidInput, MissingInput, OutputExists, Refused
from ..core.files import write_atomic
from ..core.signing import fingerprint, make_envelope
from .bundle_place import new_folder, put_in_place
from .device import SIGNATURE_FILE, DeviceError, Verified, verify_bundle
from .device.index import Index, Offer, folder_name, parse_index
from .device.names import INDEX_FILE, MAX_ENVELOPE_BYTES
from .device.store import Withdrawal
from .publication_book import Memory, caught_up, recall, remember
from .publication_index import index_bytes, read_index, unchecked_index
from .publication_page import index_json, index_page
from .single_file import device_script

VALID_DAYS = 90
"""Days for which devices take an index: the longest time that a withdrawal can be kept back."""
MAX_AHEAD = timedelta(days=1)
"""How far after now a bundle may be dated: devices take its date for the time of day."""
MAX_REASON = 200
"""Characters of a withdrawal's reason: every device keeps them all."""
LOCK_FILE = ".publishing"
MAX_INDEX_BYTES = MAX_ENVELOPE_BYTES // 2
"""Half of what a device reads: members add signatures, and its state keeps every withdrawal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who signs the next index and for how long; ``believed`` are keys whose signature counts.

    ``book`` is the file, outside the served folder, that remembers what was signed.
    """

    keys: Sequence[Ed25519PrivateKey]
    believed: Sequence[Ed25519PublicKey]
    now: datetime
    valid_days: int
    book: Path | None


def add(
    folder: Path,
    bundle: Path,
    keys: Sequence[Ed25519PrivateKey],
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    threshold: int = 1,
    valid_days: int = VALID_DAYS,
    now: datetime | None = None,
    book: Path | None = None,
) -> Path:
    """Verify ``bundle``, copy it into the publication, sign a new index; return the copy's folder.

    A first bundle makes the publication; the same bundle again changes nothing. ``keys`` sign
    the index; ``threshold`` of these and of ``trusted``, the other members' keys, must have
    signed the bundle, and one of them the index before. ``book`` remembers what was signed: an
    index in ``folder`` that is older than this is caught up with it. Raises ``Refused`` for a
    bundle that does not verify, is dated ahead, has another name, or is not newer than all that
    was ever published, and ``OutputExists`` where ``folder`` holds something else.
    """
    signing = _signing(keys, trusted, now, valid_days, book)
    _require_publication(folder)
    with _alone(folder):
        index = read_index(folder, signing.believed) if (folder / INDEX_FILE).exists() else None
        verified = _verified(bundle, signing, threshold)
        offer = _offer(bundle, verified)
        before = index or _first(verified, signing.now)
        memory = recall(signing.book, before.name)
        known = caught_up(before, memory)
        if all(each.digest != offer.digest for each in known.offers):
            _require_newer(known, memory, offer, verified)
            _copy(bundle, folder / offer.folder, verified)
            known = replace(known, offers=(*known.offers, offer))
        if known != before:
            _write(folder, known, signing)
        return folder / offer.folder


def require_ready(folder: Path, name: str, believed: Sequence[Ed25519PublicKey]) -> None:
    """Raise at once what ``add`` would raise in the end about ``folder``, before any work.

    ``name`` is the bundle's; ``believed`` are the keys of those who publish. Raises
    ``MissingInput``, ``OutputExists`` and ``Refused``.
    """
    _require_publication(folder)
    if (folder / INDEX_FILE).exists():
        _require_name(read_index(folder, believed), name)


def require_dated(created: datetime, now: datetime | None = None) -> None:
    """Raise ``Refused`` for a bundle from the future: devices would refuse all until that day."""
    latest = (now or datetime.now(UTC)) + MAX_AHEAD
    if created > latest:
        raise Refused(
            f"the bundle is dated {created:%Y-%m-%d}, and that is in the future",
            why="devices take a bundle's date for the time, and all else would seem expired to "
            "them until then",
            cure="make it anew with today's date",
        )


def withdraw(
    folder: Path,
    version: int,
    reason: str,
    keys: Sequence[Ed25519PrivateKey],
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    valid_days: int = VALID_DAYS,
    now: datetime | None = None,
    book: Path | None = None,
) -> Index:
    """Take a version back, for good: devices leave it at their next pull; return the new index.

    Its files stay, so that what was published can be looked at. Raises ``MissingInput`` for a
    version that is not offered, and ``InvalidInput`` for one without a reason.
    """
    words = " ".join(reason.split())
    if not words or not words.isprintable() or len(words) > MAX_REASON:
        raise InvalidInput(
            f"a withdrawal needs a reason: one line of at most {MAX_REASON} characters"
        )
    signing = _signing(keys, trusted, now, valid_days, book)
    with _alone(folder):
        index = _current(folder, signing)
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


def highest(folder: Path, *, book: Path | None = None, name: str = "") -> int:
    """Return the highest version that ``folder`` ever published; 0 where there is none.

    ``book`` knows those of ``name`` that ``folder`` may have lost. To number the next one: no
    signature is checked here, ``add`` does that.
    """
    index = unchecked_index(folder)
    known = (*index.offers, *index.withdrawn) if index else ()
    return max((recall(book, name).highest, *(each.version for each in known)))


def refresh(
    folder: Path,
    keys: Sequence[Ed25519PrivateKey],
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    valid_days: int = VALID_DAYS,
    now: datetime | None = None,
    book: Path | None = None,
) -> Index:
    """Sign the index again as it is, with a new expiry; return it."""
    signing = _signing(keys, trusted, now, valid_days, book)
    with _alone(folder):
        return _write(folder, _current(folder, signing), signing)


def _signing(
    keys: Sequence[Ed25519PrivateKey],
    trusted: Sequence[Ed25519PublicKey],
    now: datetime | None,
    valid_days: int,
    book: Path | None,
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
        book=book,
    )


def _current(folder: Path, signing: Signing) -> Index:
    """Return the folder's index, with whatever was signed since it."""
    index = read_index(folder, signing.believed)
    return caught_up(index, recall(signing.book, index.name))


def _verified(bundle: Path, signing: Signing, threshold: int) -> Verified:
    """Check the bundle as a device would; whether it takes a simulated one is its own affair."""
    try:
        verified = verify_bundle(
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
    if "created" in verified.predicate:
        require_dated(datetime.fromisoformat(verified.predicate["created"]), signing.now)
    return verified


def _offer(bundle: Path, verified: Verified) -> Offer:
    version = int(verified.predicate["version"])
    return Offer(
        version=version,
        digest=verified.digest,
        folder=folder_name(version, verified.digest),
        size_bytes=sum((bundle / name).stat().st_size for name in verified.subjects),
        simulated=verified.predicate["simulated"] is not False,
    )


def _require_newer(index: Index, memory: Memory, offer: Offer, verified: Verified) -> None:
    _require_name(index, verified.predicate["name"])
    if offer.digest in index.gone():
        raise Refused(
            f"version {offer.version} was withdrawn",
            why="a withdrawal is for good",
            cure="publish a bundle with a higher version",
        )
    if offer.digest in memory.published:  # back into a folder that lost it
        return
    known = [each.version for each in (*index.offers, *index.withdrawn)]
    latest = max(known, default=0)
    if offer.version <= latest:
        raise Refused(
            f"version {offer.version} is not newer than {latest}, which was published",
            why="devices never go to an older version",
            cure=f"make the bundle anew with version {max(latest, memory.highest) + 1}",
        )
    others = [digest for digest, version in memory.published.items() if version == offer.version]
    if others:
        raise Refused(
            f"version {offer.version} was signed before, as another bundle ({others[0]})",
            why="devices that have that one would never take this one",
            cure=f"make the bundle anew with version {memory.highest + 1}",
        )


def _require_name(index: Index, name: str) -> None:
    if name != index.name:
        raise Refused(
            f"the bundle is {name!r} and the publication {index.name!r}",
            why="devices follow one name",
            cure="publish it into a folder of its own",
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
    program = device_script().encode()
    following = replace(
        index,
        sequence=index.sequence + 1,
        created=signing.now,
        expires=signing.now + timedelta(days=signing.valid_days),
        device_digest=sha256_hex(program),
    )
    payload = index_bytes(following)
    envelope = make_envelope(payload, list(signing.keys))
    if len(envelope) > MAX_INDEX_BYTES:
        raise Refused(
            f"the index would have {len(envelope):,} bytes, and {MAX_INDEX_BYTES:,} are the most",
            why="a device could not keep it",
            cure="give a shorter reason, or begin a publication under another name",
        )
    write_atomic(folder / "device.py", program)
    write_atomic(folder / "index.json", index_json(following))
    write_atomic(folder / "index.html", index_page(following))
    remember(signing.book, following)
    write_atomic(folder / INDEX_FILE, envelope)
    return parse_index(payload)


def _require_publication(folder: Path) -> None:
    """Raise ``OutputExists`` for a folder that holds anything else, or cannot be one."""
    try:
        if not folder.exists() or (folder / INDEX_FILE).is_file():
            return
    except OSError as error:  # a name that is too long
        raise MissingInput(f"{folder} cannot be opened", why=f"{error.strerror}") from None
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
