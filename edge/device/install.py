"""One offered bundle becomes the current one: downloaded, checked, renamed, then remembered."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .disk import disk_error, sync_directory, write_whole
from .errors import DeviceError
from .fetch import Source, Tell, Wanted
from .index import Offer, digest_of, folder_name
from .installed import Trust
from .names import MAX_ENVELOPE_BYTES, MAX_FILE_BYTES, SIGNATURE_FILE
from .statement import check_terms, parse_statement, signed_sizes
from .store import Installed, State, Store
from .verify import verify_bundle

SPARE_BYTES = 1 << 20
"""Room that must stay on the disk beside a bundle: state file, logs, the system itself."""
CLOCK_SLACK = timedelta(days=1)
"""How far the publisher's clock may be ahead of this device's and still set its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one pull works with; ``clock`` is the time in UTC, ``tell`` hears of progress."""

    store: Store
    source: Source
    trust: Trust
    clock: datetime
    tell: Tell
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A bundle whose signature holds: what is offered, the envelope, and what was signed."""

    offer: Offer
    envelope: bytes
    subjects: dict[str, str]
    predicate: dict[str, Any]


def read_signed(job: Job, state: State, place: str) -> Signed:
    """Fetch ``bundle.sig`` under ``place`` ('' or a folder and '/') and check all it says.

    Signature, type, name, expiry, origin and runtime, in this order; raises ``DeviceError``.
    """
    envelope = job.source.read(place + SIGNATURE_FILE, MAX_ENVELOPE_BYTES)
    payload = job.trust.payload(envelope, SIGNATURE_FILE)
    subjects, predicate = parse_statement(payload)
    digest, version = digest_of(payload), predicate["version"]
    require_name(job, state, predicate["name"])
    check_terms(
        predicate,
        allow_simulated=job.trust.allow_simulated,
        expired=job.trust.expired,
        now=state.now(job.clock),
    )
    sizes = signed_sizes(subjects, predicate)
    offer = Offer(
        version=version, digest=digest, folder=place.rstrip("/"), size_bytes=sum(sizes.values())
    )
    return Signed(offer=offer, envelope=envelope, subjects=subjects, predicate=predicate)


def require_name(job: Job, state: State, name: str) -> None:
    """Refuse what the same keys signed for another purpose: a home follows one publication."""
    expected = job.name or state.name
    if expected and name != expected:
        raise DeviceError("OTHER NAME", f"this is {name!r}; the home follows {expected!r}")


def install(job: Job, state: State, signed: Signed) -> State:
    """Bring the bundle home and make it current; returns the state that is on the disk.

    Until the last step what runs is untouched; each step can be cut and is taken up again.
    """
    store, digest = job.store, signed.offer.digest
    folder = _incoming(store, state, signed)
    _download(job, state, signed, folder)
    write_whole(folder / SIGNATURE_FILE, signed.envelope)
    verified = verify_bundle(
        folder, job.trust.keys, now=state.now(job.clock), **job.trust.options()
    )
    if verified.digest != digest:
        raise DeviceError("HASH", "the bundle changed while it was checked")
    installed = Installed(
        folder=_place(store, folder_name(signed.offer.version, digest)),
        version=signed.offer.version,
        digest=digest,
    )
    _rename(folder, store.bundles / installed.folder)
    state = store.save(state_after(state, installed, signed, job.clock))
    store.tidy(state)
    return state


def state_after(state: State, installed: Installed, signed: Signed, clock: datetime) -> State:
    """Return the state in which ``installed`` runs and what ran before can be gone back to."""
    before = state.current
    if before is None or before.digest == installed.digest or state.withdrawal(before.digest):
        before = state.previous  # never a broken or withdrawn one
    return replace(
        state,
        name=state.name or str(signed.predicate["name"]),
        current=installed,
        previous=before,
        floor=max(state.floor, installed.version),
        latest_time=vouched(state, signed.predicate, clock),
    )


def vouched(state: State, signed: dict[str, Any], clock: datetime) -> str:
    """Return the latest time that a signed text vouches for, as ISO 8601.

    When it was made, unless the clock says that this is yet to come, and the clock's own time as
    long as that lies within its life: so a clock that is set back revives nothing, and neither a
    wrong date nor a clock that jumps years ahead leaves a trace.
    """
    known = [datetime.fromisoformat(state.latest_time)] if state.latest_time else []
    expires = datetime.fromisoformat(signed["expires"])
    created = datetime.fromisoformat(signed["created"]) if "created" in signed else None
    if created is not None and created <= clock + CLOCK_SLACK:
        known.append(created)
    if clock < expires:
        known.append(clock)
    return max(known).astimezone(UTC).isoformat() if known else ""


def _incoming(store: Store, state: State, signed: Signed) -> Path:
    """Return the folder in which this bundle is gathered, with what an earlier pull left of it."""
    key = signed.offer.digest.removeprefix("sha256:")
    folder = store.incoming / key
    named = {each.folder for each in (state.current, state.previous) if each}
    whole = store.bundles / folder_name(signed.offer.version, signed.offer.digest)
    try:
        for each in (store.bundles, store.incoming):
            each.mkdir(exist_ok=True)
        if whole.is_dir() and whole.name not in named and not folder.exists():
            whole.replace(folder)  # a pull was killed between its rename and its state
        folder.mkdir(exist_ok=True)
        store.tidy(state, keep=key)
        for entry in folder.iterdir():
            if entry.name not in signed.subjects or entry.is_symlink() or not entry.is_file():
                _remove(entry)
    except OSError as error:
        raise disk_error(error) from None
    return folder


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _download(job: Job, state: State, signed: Signed, folder: Path) -> None:
    sizes = signed_sizes(signed.subjects, signed.predicate)
    place = f"{signed.offer.folder}/" if signed.offer.folder else ""
    exact = signed.predicate.get("sizes", {})
    missing = {
        name: expected
        for name, expected in sorted(signed.subjects.items())
        if _hash(folder / name) != expected
    }
    _require_room(folder, {name: exact.get(name, 0) for name in missing})
    for name, expected in missing.items():
        wanted = Wanted(place=place + name, size=exact.get(name), limit=sizes[name])
        _one(job, state, wanted, folder / name, expected)


def _one(job: Job, state: State, wanted: Wanted, target: Path, expected: str) -> None:
    """Bring one file: from the current bundle where it lies there, else on from what is here."""
    _forget_too_long(target, wanted.size)
    if _copied(job.store, state, target, expected):
        return
    resumed = target.exists() and target.stat().st_size > 0
    job.source.fetch(wanted, target, job.tell)
    if _hash(target) == expected:
        return
    target.unlink()
    if resumed:  # the first part was bad: once more from the start
        job.source.fetch(wanted, target, job.tell)
        if _hash(target) == expected:
            return
        target.unlink()
    raise DeviceError("HASH", f"{wanted.name} is not the file that was signed")


def _forget_too_long(target: Path, size: int | None) -> None:
    """Remove a file that more bytes cannot complete."""
    if size is not None and target.exists() and target.stat().st_size >= size:
        target.unlink()


def _copied(store: Store, state: State, target: Path, expected: str) -> bool:
    """Copy the file from the current bundle if it is there, byte for byte; return whether."""
    own = store.bundles / state.current.folder / target.name if state.current else None
    if own is None or own.is_symlink() or _hash(own) != expected:
        return False
    try:
        write_whole(target, own.read_bytes())
    except OSError as error:
        raise disk_error(error) from None
    return _hash(target) == expected


def _hash(path: Path) -> str:
    """Return a file's SHA-256, or '' where there is none or it is too large to be one of ours."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return ""
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _require_room(folder: Path, sizes: dict[str, int]) -> None:
    """Refuse before the first byte when the signed sizes cannot fit."""
    here = {entry.name: entry.stat().st_size for entry in folder.iterdir()}
    coming = sum(max(0, size - here.get(name, 0)) for name, size in sizes.items())
    free = shutil.disk_usage(folder).free
    if coming + SPARE_BYTES > free:
        why = f"{coming} bytes are to come and {free} are free; what runs is untouched"
        raise DeviceError("FULL DISK", f"{why}: make room, then pull again", 75)


def _place(store: Store, name: str) -> str:
    """Return a name that is free in ``bundles``: a broken bundle is never written over."""
    free, number = name, 1
    while (store.bundles / free).exists():
        number += 1
        free = f"{name}.{number}"
    return free


def _rename(folder: Path, target: Path) -> None:
    try:
        sync_directory(folder)
        folder.replace(target)
        sync_directory(target.parent)
        sync_directory(folder.parent)
    except OSError as error:
        raise disk_error(error) from None
