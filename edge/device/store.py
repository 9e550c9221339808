"""A device's home on disk: whom it trusts, what it runs, and one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tomllib
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .envelope import FINGERPRINT, read_key
from .errors import DeviceError
from .files import read_limited
from .names import are_plain

SETTINGS_FILE = "device.toml"
STATE_FILE = "state.json"
LOCK_FILE = "lock"
BUNDLES = "bundles"
INCOMING = "incoming"
MAX_STATE_BYTES = 1 << 20
FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


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
    aside; ``latest_time`` is the latest UTC time that anything verified vouched for.
    """

    name: str = ""
    current: Installed | None = None
    previous: Installed | None = None
    floor: int = 0
    index_sequence: int = 0
    index_digest: str = ""
    index_expires: str = ""
    refused: tuple[str, ...] = ()
    withdrawn: tuple[Withdrawal, ...] = ()
    latest_time: str = ""
    last_pull: dict[str, Any] = field(default_factory=dict[str, Any])

    def withdrawal(self, digest: str) -> Withdrawal | None:
        """Return the withdrawal of this bundle, if it was withdrawn."""
        return next((each for each in self.withdrawn if each.digest == digest), None)

    def now(self, clock: datetime | None = None) -> datetime:
        """Return the time in UTC, never earlier than what was verified before.

        A clock that is set back, or none at all, therefore revives no expired bundle.
        """
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
            table = tomllib.loads(raw.decode())
            for name in ("keys", "revoked"):
                table[name] = tuple(table.get(name, ()))
            settings = Settings(**table)
            _check_settings(settings)
        except (ValueError, TypeError) as error:
            raise DeviceError("BAD HOME", f"{SETTINGS_FILE}: {error}", 65) from None
        return settings

    def state(self) -> State:
        """Read ``state.json``."""
        raw = read_limited(self.path / STATE_FILE, MAX_STATE_BYTES)
        try:
            return state_from(json.loads(raw))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            why = f"{STATE_FILE} is damaged; `init` a new home and pull again"
            raise DeviceError("BAD HOME", why, 65) from None

    def save(self, state: State) -> State:
        """Replace ``state.json`` in one step that survives a power cut; return ``state``."""
        text = json.dumps({"schema": 1, **asdict(state)}, indent=2, sort_keys=True)
        write_whole(self.path / STATE_FILE, (text + "\n").encode())
        return state

    def note_pull(self, **words: str) -> None:
        """Remember how the last pull ended; a disk that takes nothing any more is no news."""
        with contextlib.suppress(OSError, DeviceError):
            time = datetime.now(UTC).isoformat(timespec="seconds")
            self.save(replace(self.state(), last_pull={"time": time, **words}))

    def tidy(self, state: State, keep: str = "") -> None:
        """Remove what earlier versions and killed pulls left; ``keep`` names one in ``incoming``.

        Only after ``state`` is on the disk: nothing that it names is ever touched.
        """
        named = {each.folder for each in (state.current, state.previous) if each}
        for folder, stay in ((self.bundles, named), (self.incoming, {keep})):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if entry.name not in stay:
                    shutil.rmtree(entry, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Keep every other pull and rollback out; the system lets go when the process ends."""
        try:
            descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error) from None
        try:
            if not _lock(descriptor):
                why = "another pull or rollback is at work in this home; try again when it is done"
                raise DeviceError("BUSY", why, 75)
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock without waiting; return whether it worked."""
    try:
        if os.name == "nt":
            import msvcrt

            getattr(msvcrt, "locking")(descriptor, getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def state_from(table: dict[str, Any]) -> State:
    """Return the state that a JSON object spells out; raises what a wrong one brings."""
    if table.pop("schema") != 1:
        raise ValueError("schema")
    parsed: dict[str, Any] = {
        "current": _installed(table["current"]),
        "previous": _installed(table["previous"]),
        "refused": tuple(str(digest) for digest in table["refused"]),
        "withdrawn": tuple(Withdrawal(**each) for each in table["withdrawn"]),
    }
    state = State(**(table | parsed))
    if state.latest_time and datetime.fromisoformat(state.latest_time).tzinfo is None:
        raise ValueError("latest_time")
    return replace(state, floor=int(state.floor), index_sequence=int(state.index_sequence))


def _installed(table: dict[str, Any] | None) -> Installed | None:
    if table is None:
        return None
    if not are_plain([table["folder"]]) or not isinstance(table["version"], int):
        raise ValueError("installed")
    return Installed(**table)


def _check_settings(settings: Settings) -> None:
    if not settings.keys or not 1 <= settings.threshold <= len(set(settings.keys)):
        raise ValueError("threshold must be at least 1 and at most the number of keys")
    if settings.expired not in ("refuse", "warn"):
        raise ValueError('expired must be "refuse" or "warn"')
    for key in (*settings.keys, *settings.revoked):
        if not key.startswith(FINGERPRINT):
            raise ValueError(f"a key reads {FINGERPRINT}BASE64")
        read_key(key)


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


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, sync, replace, sync the folder: the old bytes or the new ones, never a mix."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise disk_error(error) from None


def sync_directory(folder: Path) -> None:
    """Make a rename in ``folder`` durable; Windows opens no folders and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: OSError) -> DeviceError:
    """Return what a failure of this device's disk means to its operator."""
    if error.errno in FULL:
        why = "the disk is full; what runs is untouched: make room, then pull again"
        return DeviceError("FULL DISK", why, 75)
    return DeviceError("DISK", f"the home cannot be written: {error.strerror}", 66)
