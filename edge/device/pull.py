"""Look at the publication, decide, and bring what is newer; any refusal leaves what runs alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from .disk import disk_error
from .errors import DeviceError
from .fetch import FolderSource, Source, Tell
from .fetch_web import Patience, WebSource
from .index import Index, Offer, parse_index
from .install import Job, Signed, install, read_signed, require_name, vouched
from .installed import Moved, trust_of, verify_installed
from .names import INDEX_FILE, MAX_ENVELOPE_BYTES, SIGNATURE_FILE
from .rollback import leave_withdrawn
from .store import MOST_REASON, Installed, Settings, State, Store, Withdrawal

BROKEN = frozenset(
    {"BAD FILE", "BAD SIGNATURE", "FILE SET", "HASH", "MISSING", "MODEL", "SELFTEST"}
)
"""Why an installed bundle may be fetched anew: its files are not what they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulling:
    """What may be said for one pull beside what ``device.toml`` says."""

    allow_simulated: bool = False
    allow_expired: bool = False
    allow_http: bool = False
    ca: str = ""
    patience: Patience | None = None
    tell: Tell = lambda _name, _done, _size: None
    clock: datetime | None = None


def pull(store: Store, options: Pulling | None = None) -> Moved:
    """Take the newest bundle that is offered, or say that there is none newer.

    Raises ``DeviceError``: 75 when pulling again goes on where this one stopped, 77 when what
    is offered is refused. The home then runs what it ran before.
    """
    given, settings = options or Pulling(), store.settings()
    trust = trust_of(
        settings, allow_simulated=given.allow_simulated, allow_expired=given.allow_expired
    )
    with store.locked():
        try:
            _forget_if_revoked(store, settings.revoked)
            source, alone = open_source(settings, given)
            clock = given.clock or datetime.now(UTC)
            job = Job(
                store=store, source=source, trust=trust, clock=clock, tell=given.tell,
                name=settings.name,
            )  # fmt: skip
            done = _from_bundle(job) if alone else _from_publication(job)
        except DeviceError as error:
            store.note_pull(outcome="failed", code=error.code, reason=error.reason)
            raise
        except KeyboardInterrupt:
            store.note_pull(outcome="failed", code="INTERRUPTED", reason="stopped")
            raise DeviceError("INTERRUPTED", "stopped; pull again, and it goes on", 75) from None
        except OSError as error:
            named = disk_error(error)
            store.note_pull(outcome="failed", code=named.code, reason=named.reason)
            raise named from None
        store.note_pull(outcome=done.outcome, code="", reason=done.words)
        return done


def _forget_if_revoked(store: Store, revoked: tuple[str, ...]) -> None:
    """Begin time and sequence anew once a key is trusted no more: it could have set them.

    The floor, what was refused and what was withdrawn stay: nothing older comes in.
    """
    state = store.state()
    known = replace(state, revoked=revoked)
    if set(revoked) - set(state.revoked):
        known = replace(
            known, latest_time="", index_sequence=0, index_digest="", index_created="",
            index_expires="",
        )  # fmt: skip
    if known != state:
        store.save(known)


def open_source(settings: Settings, given: Pulling) -> tuple[Source, bool]:
    """Return where files come from, and whether it is one bundle and no publication."""
    url = settings.url
    if "://" not in url or url.startswith("file://"):
        folder = Path(url.removeprefix("file://"))
        source = FolderSource(folder)
        return source, source.has(SIGNATURE_FILE) and not source.has(INDEX_FILE)
    web = WebSource(
        url.removesuffix(f"/{SIGNATURE_FILE}"),
        allow_http=settings.allow_http or given.allow_http,
        ca=given.ca or settings.ca,
        patience=given.patience,
    )
    return web, url.endswith(f"/{SIGNATURE_FILE}")


def _from_bundle(job: Job) -> Moved:
    """Take one bundle that is offered without an index: nothing says whether it is the newest."""
    state = job.store.state()
    if state.index_sequence:
        why = f"there is no {INDEX_FILE}, which this home has seen before"
        raise DeviceError("ROLLBACK", f"{why}: withdrawals could be kept from it")
    signed = read_signed(job, state, "")
    current, offer = state.current, signed.offer
    if current and current.digest == offer.digest:
        return _still(job, state, signed, current)
    if offer.digest in state.refused:
        raise DeviceError("ROLLBACK", f"version {offer.version} was set aside by a rollback")
    if offer.version <= state.floor:
        why = f"version {offer.version} is not newer than {state.floor}, which this home has had"
        raise DeviceError("ROLLBACK", why)
    return _update(job, state, signed)


def _from_publication(job: Job) -> Moved:
    state, index = read_index(job)
    offer = choose(index, state)
    current = state.current
    gone = state.withdrawal(current.digest) if current else None
    if offer is None:
        return _without_offer(job, state, gone)
    try:
        signed = read_signed(job, state, f"{offer.folder}/")
        if (signed.offer.digest, signed.offer.version) != (offer.digest, offer.version):
            raise DeviceError("HASH", "bundle.sig is not the one that the index names")
        _require_dates(signed, index)
        if current and current.digest == offer.digest:
            return _still(job, state, signed, current)
        return _update(job, state, signed)
    except DeviceError:
        if gone is None:
            raise
        _without_offer(job, state, gone)  # a withdrawn version does not wait for a better network
        raise


def read_index(job: Job) -> tuple[State, Index]:
    """Fetch and check the index, and remember at once what it takes back.

    Signature, type, name, expiry, sequence, in this order; raises ``DeviceError``.
    """
    state = job.store.state()
    try:
        envelope = job.source.read(INDEX_FILE, MAX_ENVELOPE_BYTES)
    except DeviceError as error:
        if error.code != "MISSING":
            raise
        why = f"{error.reason}; one bundle alone is named by its signature: .../{SIGNATURE_FILE}"
        raise DeviceError("MISSING", why, 66) from None
    index = parse_index(job.trust.payload(envelope, INDEX_FILE))
    require_name(job, state, index.name)
    _require_fresh(job, state, index)
    older = index.sequence < state.index_sequence
    if older or (index.sequence == state.index_sequence and index.digest != state.index_digest):
        why = f"index {index.sequence} is not newer than {state.index_sequence}, seen here before"
        raise DeviceError("ROLLBACK", why)
    times = {"created": index.created.isoformat(), "expires": index.expires.isoformat()}
    found = replace(
        state,
        name=state.name or index.name,
        index_sequence=index.sequence,
        index_digest=index.digest,
        index_created=times["created"],
        index_expires=times["expires"],
        withdrawn=_joined(state, index),
        latest_time=vouched(state, times, job.clock),
    )
    return (job.store.save(found) if found != state else state), index


def _require_fresh(job: Job, state: State, index: Index) -> None:
    """Refuse an expired index. A newer one is not measured by the date of the one before.

    So one that was dated ahead by mistake, and made this home late, is put right by the next.
    """
    newer = index.sequence > state.index_sequence
    now = max(state.clock(job.clock) if newer else state.now(job.clock), index.created)
    if now >= index.expires and job.trust.expired != "warn":
        why = f"the index expired at {index.expires.isoformat()}; ask its publisher for a fresh one"
        raise DeviceError("EXPIRED", why)


def _joined(state: State, index: Index) -> tuple[Withdrawal, ...]:
    """Return all that was ever withdrawn; of the reasons only so much as a home can hold."""
    known = {each.digest for each in state.withdrawn}
    new = (each for each in index.withdrawn if each.digest not in known)
    return (*state.withdrawn, *(replace(w, reason=w.reason[:MOST_REASON]) for w in new))


def _require_dates(signed: Signed, index: Index) -> None:
    """Refuse a bundle that was made after the index that offers it ends: one date is wrong."""
    created = signed.predicate.get("created")
    if created and datetime.fromisoformat(created) > index.expires:
        why = f"it says it was made at {created}, after the index that offers it expires"
        raise DeviceError("BAD STATEMENT", f"{why}; its publisher must sign it anew")


def choose(index: Index, state: State) -> Offer | None:
    """Return the highest version that is neither withdrawn nor set aside and may be taken.

    None when this home should stay with what it has. Raises ``DeviceError`` ROLLBACK when all
    that is offered is older than what runs.
    """
    gone = {each.digest for each in state.withdrawn} | set(state.refused)
    left = [offer for offer in index.offers if offer.digest not in gone]
    best = max(left, key=lambda offer: offer.version, default=None)
    current = state.current
    if best is None or (current and best.digest == current.digest) or best.version > state.floor:
        return best
    if current is None or state.withdrawal(current.digest) or best.version > current.version:
        return None
    why = f"version {best.version} is offered and version {current.version} runs here"
    raise DeviceError("ROLLBACK", why)


def _still(job: Job, state: State, signed: Signed, current: Installed) -> Moved:
    """Check what runs; files that were damaged on this device are fetched anew."""
    try:
        verify_installed(job.store, state, current, job.trust, job.clock)
    except DeviceError as error:
        if error.code not in BROKEN:
            raise
        state = install(job, state, signed)
        words = f"version {current.version} was damaged here ({error.code}) and was fetched anew"
        return Moved(outcome="updated", state=state, before=current.version, words=words)
    job.store.tidy(state)
    words = f"version {current.version} is the newest"
    return Moved(outcome="current", state=state, before=current.version, words=words)


def _update(job: Job, state: State, signed: Signed) -> Moved:
    before = state.current.version if state.current else None
    if signed.offer.version <= state.floor:
        raise DeviceError("ROLLBACK", f"version {signed.offer.version} is not newer")
    state = install(job, state, signed)
    words = f"version {signed.offer.version} runs now"
    return Moved(outcome="updated", state=state, before=before, words=words)


def _without_offer(job: Job, state: State, gone: Withdrawal | None) -> Moved:
    """Stay, or go back from a version that its publisher withdrew."""
    current = state.current
    if current is None:
        raise DeviceError("MISSING", "the publication offers nothing that may be taken", 66)
    if gone is None:
        words = f"version {current.version} stays: nothing newer may be taken"
        return Moved(outcome="current", state=state, before=current.version, words=words)
    state = leave_withdrawn(job.store, state, job.trust, job.clock)
    words = f"version {gone.version} was withdrawn: {gone.reason}"
    if state.current is None or state.current.digest == current.digest:
        raise DeviceError("WITHDRAWN", f"{words}; there is no other version, here or there")
    return Moved(
        outcome="went back",
        state=state,
        before=current.version,
        words=f"{words}; version {state.current.version} runs again",
    )
