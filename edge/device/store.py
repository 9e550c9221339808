"""A device's home on disk: whom it trusts, what it runs, and one writer at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Collection, Generator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .disk import disk_error, lock_now, write_whole
from .envelope import FINGERPRINT, canonical_key
from .errors import DeviceError
from .fields import count_in, digest_in, moment_in, rows_in, table_in, text_in, texts_in, truth_in
from .files import read_limited
from .names import are_plain

SETTINGS_FILE = "device.toml"
STATE_FILE = "state.json"
LOCK_FILE = "lock"
BUNDLES = "bundles"
INCOMING = "incoming"
MAX_STATE_BYTES = 1 << 22
"""More than any index of 1 MiB can make it; ``save`` refuses what ``state`` would not read."""
MOST_REASON = 200
"""Characters that a home keeps of a withdrawal's reason."""
OWN_BUNDLE = re.compile(r"v\d{1,19}-[0-9a-f]{12}(\.\d{1,6})?")
OWN_INCOMING = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator decided: ``device.toml``; nothing in it ever comes from a bundle.

    ``keys`` and ``revoked`` are ``ed25519:BASE64``; ``name`` is the publication's name, or ''
    for whatever the first pull finds; ``expired`` is "refuse" or "warn".
    """

    url: str
    keys: tuple[str, ...]
    threshold: int = 1
    revoked: tuple[str, ...] = ()
    name: str = ""
    allow_simulated: bool = False
    expired: str = "refuse"
    allow_http: bool = False
    ca: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A bundle in ``bundles/``; ``digest`` is that of its signed statement, sha256:HEX."""

    folder: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A version that its publisher took back, in signed words."""

    version: int
    digest: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that a pull or a rollback changes, in one file that is replaced whole.

    ``floor`` is the highest version ever taken; ``refused`` are digests that a rollback set
    aside; ``latest_time`` is the latest UTC time of this device's clock that anything verified
    vouched for, and ``index_created`` the newest index's own: a wrong one ends with the next
    index. ``revoked`` are the keys under which time and sequence were counted.
    """

    name: str = ""
    current: Installed | None = None
    previous: Installed | None = None
    floor: int = 0
    index_sequence: int = 0
    index_digest: str = ""
    index_created: str = ""
    index_expires: str = ""
    refused: tuple[str, ...] = ()
    withdrawn: tuple[Withdrawal, ...] = ()
    latest_time: str = ""
    revoked: tuple[str, ...] = ()
    last_pull: dict[str, Any] = field(default_factory=dict[str, Any])

    def withdrawal(self, digest: str) -> Withdrawal | None:
        """Return the withdrawal of this bundle, if it was withdrawn."""
        return next((each for each in self.withdrawn if each.digest == digest), None)

    def now(self, clock: datetime | None = None) -> datetime:
        """Return the time in UTC, never earlier than what was verified before.

        A clock that is set back, or none at all, therefore revives no expired bundle.
        """
        times = [self.clock(clock)]
        times += [datetime.fromisoformat(self.index_created)] if self.index_created else []
        return max(times)

    def clock(self, clock: datetime | None = None) -> datetime:
        """Return the clock's time in UTC, never earlier than one that was verified before."""
        now = clock or datetime.now(UTC)
        return max(now, datetime.fromisoformat(self.latest_time)) if self.latest_time else now


class Store:
    """The folder of one device. Raises ``DeviceError``, never a bare error of the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundles, self.incoming = path / BUNDLES, path / INCOMING

    def settings(self) -> Settings:
        """Read ``device.toml``."""
        raw = read_limited(self.path / SETTINGS_FILE, MAX_STATE_BYTES)
        try:
            settings = _canonical(settings_from(tomllib.loads(raw.decode())))
            _check_settings(settings)
        except (ValueError, RecursionError) as error:
            words = "no UTF-8" if isinstance(error, UnicodeError) else error
            why = f"{SETTINGS_FILE}: {words}; put it right, or `init` a new home"
            raise DeviceError("BAD HOME", why, 65) from None
        return settings

    def state(self) -> State:
        """Read ``state.json``."""
        raw = read_limited(self.path / STATE_FILE, MAX_STATE_BYTES)
        try:
            return state_from(json.loads(raw))
        except (ValueError, RecursionError) as error:
            words = "no JSON" if isinstance(error, UnicodeError | RecursionError) else error
            why = f"{STATE_FILE} is damaged ({words}); `init` a new home and pull again"
            raise DeviceError("BAD HOME", why, 65) from None

    def save(self, state: State) -> State:
        """Replace ``state.json`` in one step that survives a power cut; return ``state``."""
        table = {"schema": 1, **asdict(state)}
        text = json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        raw = text.encode("utf-8", "surrogatepass")  # as json.loads reads them
        if len(raw) > MAX_STATE_BYTES:
            why = f"{STATE_FILE} would have more than {MAX_STATE_BYTES} bytes; nothing is changed"
            raise DeviceError("TOO LARGE", f"{why}: `init` a new home and pull again")
        write_whole(self.path / STATE_FILE, raw)
        return state

    def note_pull(self, **words: str) -> None:
        """Remember how the last pull ended; a disk that takes nothing any more is no news."""
        with contextlib.suppress(OSError, DeviceError):
            time = datetime.now(UTC).isoformat(timespec="seconds")
            self.save(replace(self.state(), last_pull={"time": time, **words}))

    def tidy(self, state: State, keep: str = "") -> None:
        """Remove what earlier versions and killed pulls left; ``keep`` names one in ``incoming``.

        Only after ``state`` is on the disk: nothing that it names is ever touched, and nothing
        whose name is not one that ``pull`` gives.
        """
        named = {each.folder for each in (state.current, state.previous) if each}
        for folder, stay, own in (
            (self.bundles, named, OWN_BUNDLE),
            (self.incoming, {keep}, OWN_INCOMING),
        ):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if entry.name not in stay and own.fullmatch(entry.name):
                    shutil.rmtree(entry, ignore_errors=True)

    def strangers(self) -> list[str]:
        """Return what lies here and is not a home's; [] where there is no folder yet."""
        if not os.path.lexists(self.path):
            return []
        files = {SETTINGS_FILE, STATE_FILE}
        known = {*files, *(f"{name}.partial" for name in files), LOCK_FILE, BUNDLES, INCOMING}
        found = [entry.name for entry in self.path.iterdir() if entry.name not in known]
        for folder, own in ((self.bundles, OWN_BUNDLE), (self.incoming, OWN_INCOMING)):
            entries = folder.iterdir() if os.path.lexists(folder) else ()
            found += [f"{folder.name}/{e.name}" for e in entries if not own.fullmatch(e.name)]
        return sorted(found)

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Keep every other pull and rollback out; the system lets go when the process ends."""
        try:
            descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error) from None
        try:
            if not lock_now(descriptor):
                why = "another pull or rollback is at work in this home; try again when it is done"
                raise DeviceError("BUSY", why, 75)
            yield
        finally:
            os.close(descriptor)


def state_from(found: object) -> State:
    """Return the state that a JSON object spells out, every field of it checked.

    Raises ``ValueError`` with the field's name.
    """
    table = table_in(found, "the whole")
    if table.pop("schema", None) != 1:
        raise ValueError("schema is not 1")
    forms: dict[str, Callable[[object, str], Any]] = {
        "name": text_in,
        "current": _installed,
        "previous": _installed,
        "floor": count_in,
        "index_sequence": count_in,
        "index_digest": _or_empty(digest_in),
        "index_created": _or_empty(_moment_text),
        "index_expires": _or_empty(_moment_text),
        "refused": _digests,
        "withdrawn": _withdrawals,
        "latest_time": _or_empty(_moment_text),
        "revoked": texts_in,
        "last_pull": _last_pull,
    }
    _require_known(table, forms)
    return State(**{name: forms[name](value, name) for name, value in table.items()})


def _require_known(table: dict[str, Any], forms: Collection[str]) -> None:
    odd = sorted(set(table) - set(forms))
    if odd:
        raise ValueError(f"{odd[0][:40]!a} is not a field of it")


def _or_empty(form: Callable[[object, str], str]) -> Callable[[object, str], str]:
    return lambda value, name: "" if value == "" else form(value, name)


def _moment_text(value: object, name: str) -> str:
    return moment_in(value, name).isoformat()


def _digests(value: object, name: str) -> tuple[str, ...]:
    return tuple(digest_in(each, name) for each in rows_in(value, name))


def _installed(value: object, name: str) -> Installed | None:
    if value is None:
        return None
    table = table_in(value, name)
    folder = text_in(table.get("folder"), f"{name}.folder")
    if not are_plain([folder]) or set(table) != {"folder", "version", "digest"}:
        raise ValueError(f"{name} is no installed bundle")
    return Installed(
        folder=folder,
        version=count_in(table["version"], f"{name}.version"),
        digest=digest_in(table["digest"], f"{name}.digest"),
    )


def _withdrawals(value: object, name: str) -> tuple[Withdrawal, ...]:
    tables = [table_in(each, name) for each in rows_in(value, name)]
    if any(set(table) != {"version", "digest", "reason"} for table in tables):
        raise ValueError(f"{name} is no list of withdrawals")
    return tuple(
        Withdrawal(
            version=count_in(table["version"], f"{name}.version"),
            digest=digest_in(table["digest"], f"{name}.digest"),
            reason=text_in(table["reason"], f"{name}.reason"),
        )
        for table in tables
    )


def _last_pull(value: object, name: str) -> dict[str, Any]:
    table = table_in(value, name)
    if table and set(table) != {"time", "outcome", "code", "reason"}:
        raise ValueError(f"{name} is not what a pull notes")
    return {key: text_in(each, f"{name}.{key}") for key, each in table.items()}


def settings_from(table: dict[str, Any]) -> Settings:
    """Return the settings that a table spells out; raises ``ValueError`` with the field's name."""
    forms: dict[str, Callable[[object, str], Any]] = {
        "url": text_in,
        "keys": texts_in,
        "threshold": count_in,
        "revoked": texts_in,
        "name": text_in,
        "allow_simulated": truth_in,
        "expired": text_in,
        "allow_http": truth_in,
        "ca": text_in,
    }
    _require_known(table, forms)
    if not table.get("url") or "keys" not in table:
        raise ValueError("url and keys are needed")
    return Settings(**{name: forms[name](value, name) for name, value in table.items()})


def _canonical(settings: Settings) -> Settings:
    """Return the settings with each key in its one spelling: they are compared as texts."""
    if not all(key.startswith(FINGERPRINT) for key in (*settings.keys, *settings.revoked)):
        raise ValueError(f"a key reads {FINGERPRINT}BASE64")
    keys = tuple(dict.fromkeys(map(canonical_key, settings.keys)))
    return replace(settings, keys=keys, revoked=tuple(map(canonical_key, settings.revoked)))


def _check_settings(settings: Settings) -> None:
    if not settings.keys or not 1 <= settings.threshold <= len(set(settings.keys)):
        raise ValueError("threshold must be at least 1 and at most the number of keys")
    if settings.expired not in ("refuse", "warn"):
        raise ValueError('expired must be "refuse" or "warn"')


def settings_text(settings: Settings) -> str:
    """Return ``device.toml``: a JSON string or array of strings is the same in TOML."""
    about = {
        "url": "where publications come from: a folder or a web address",
        "keys": "keys that are trusted to sign",
        "threshold": "how many of them must have signed",
        "revoked": "keys that are trusted no more; a signature of theirs counts for nothing",
        "name": "the publication's name; empty: the first one that is pulled",
        "allow_simulated": "take bundles without a privacy guarantee",
        "expired": 'what to do with an expired bundle: "refuse" or "warn"',
        "allow_http": "fetch without TLS: signatures protect content, not what is watched or held",
        "ca": "certificate authority of the server (PEM file), when it is a private one",
    }
    lines: list[str] = []
    for name, words in about.items():
        value = json.dumps(getattr(settings, name), ensure_ascii=False)
        lines += [f"# {words}", f"{name} = {value}", ""]
    return "\n".join(lines)
