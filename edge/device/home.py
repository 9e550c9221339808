"""A device's home as one object: pull, rollback, health, and the bundle that runs.

home = Home(Path("home"))
home.pull()
labels, chances = home.load().predict(x)
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .disk import disk_error, write_whole
from .envelope import canonical_key
from .errors import DeviceError
from .fetch_web import check_address
from .health import health
from .installed import Moved, require_current, trust_of, verify_installed
from .predicting import Verified
from .pull import Pulling, pull
from .rollback import roll_back
from .store import (
    SETTINGS_FILE,
    STATE_FILE,
    Settings,
    State,
    Store,
    settings_text,
)


def is_home(path: Path) -> bool:
    """Return whether this folder is a device's home; ``DeviceError`` where nobody can tell."""
    try:
        return (path / SETTINGS_FILE).is_file()
    except OSError as error:
        raise DeviceError("MISSING", f"it cannot be read: {error.strerror}", 66) from None


class Home:
    """The folder in which a device keeps what it trusts and what it runs."""

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        self._store = Store(folder)
        if not is_home(folder):
            why = f"{folder.name} is no home of a device (no {SETTINGS_FILE}); `init` makes one"
            raise DeviceError("MISSING", why, 66)

    def trusts(self) -> tuple[str, ...]:
        """Return the keys that ``device.toml`` trusts, without the revoked ones."""
        settings = self._store.settings()
        return tuple(key for key in settings.keys if key not in settings.revoked)

    def pull(self, options: Pulling | None = None) -> Moved:
        """Take the newest version that is offered; raises ``DeviceError`` and changes nothing."""
        return pull(self._store, options)

    def rollback(
        self,
        *,
        allow_simulated: bool = False,
        allow_expired: bool = False,
        clock: datetime | None = None,
    ) -> Moved:
        """Go back to the version before and never take the present one again."""
        trust = trust_of(
            self._store.settings(), allow_simulated=allow_simulated, allow_expired=allow_expired
        )
        return roll_back(self._store, trust, clock)

    def health(
        self,
        *,
        allow_simulated: bool = False,
        allow_expired: bool = False,
        clock: datetime | None = None,
    ) -> dict[str, Any]:
        """Return plain values about this device; "ok" is whether it may predict."""
        trust = trust_of(
            self._store.settings(), allow_simulated=allow_simulated, allow_expired=allow_expired
        )
        return health(self._store, trust, clock)

    def load(
        self,
        *,
        allow_simulated: bool = False,
        allow_expired: bool = False,
        allow_withdrawn: bool = False,
        clock: datetime | None = None,
    ) -> Verified:
        """Return the bundle that runs, every byte checked; raises ``DeviceError``."""
        trust = trust_of(
            self._store.settings(), allow_simulated=allow_simulated, allow_expired=allow_expired
        )
        state = self._store.state()
        current = require_current(state, allow_withdrawn=allow_withdrawn)
        try:
            return verify_installed(self._store, state, current, trust, clock)
        except DeviceError:
            state = self._store.state()
            moved = require_current(state, allow_withdrawn=allow_withdrawn)
            if moved == current:
                raise
        # two pulls went by while it was read: what ran then is gone, and this runs now
        return verify_installed(self._store, state, moved, trust, clock)


def make_home(path: Path, settings: Settings) -> Settings:
    """Make a new home; ``settings.keys`` may name PEM files. Returns what was written.

    ``device.toml`` comes last: without it a folder is no home. Raises ``DeviceError``: 64 for
    settings that cannot work, 73 where a home is already, or anything else.
    """
    if is_home(path):
        why = f"{path.name} is a home already; edit its {SETTINGS_FILE}, or name another folder"
        raise DeviceError("EXISTS", why, 73)
    keys = tuple(dict.fromkeys(map(canonical_key, settings.keys)))
    if not keys or not 1 <= settings.threshold <= len(keys):
        why = f"--threshold {settings.threshold} with {len(keys)} keys: none could be enough"
        raise DeviceError("USAGE", why, 64)
    revoked = tuple(map(canonical_key, settings.revoked))  # a mistyped one would revoke nothing
    url, ca = _place_of(settings), str(Path(settings.ca).resolve()) if settings.ca else ""
    whole = replace(settings, url=url, keys=keys, revoked=revoked, ca=ca)
    store = Store(path)
    try:
        strangers = store.strangers()
        if not strangers:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error) from None
    if strangers:
        why = f"{path.name} holds {strangers[0]!a}, which is no home's; name a new or empty folder"
        raise DeviceError("EXISTS", why, 73)
    if not (path / STATE_FILE).exists():
        store.save(State(name=settings.name))
    write_whole(path / SETTINGS_FILE, settings_text(whole).encode())
    return whole


def _place_of(settings: Settings) -> str:
    """Return the address as it is kept: a folder in full, a web address as it was given."""
    url = settings.url
    if not url.strip() or not url.isprintable():
        raise DeviceError("BAD ADDRESS", "it is empty, or holds control characters", 64)
    if "://" in url and not url.startswith("file://"):
        check_address(url, allow_http=settings.allow_http)
        return url.rstrip("/")
    return str(Path(url.removeprefix("file://")).resolve())
