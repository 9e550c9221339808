"""The coordinator's disk in memory: it may be full, lie about a sync, and rot."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Literal

from .nemesis_world import World

_LAST = 4  # writes that a lying disk may still hold when the power goes


class SimDisk:
    """Files and one database that outlive the coordinator's process; every call may be its last.

    With ``lies`` the last few files are lost or torn at a crash although they were synced; with
    ``rots`` a bit of the newest checkpoint flips there. Both must be found and mended.
    """

    def __init__(self, world: World, *, lies: bool = False, rots: bool = False) -> None:
        self._world, self._lies, self._rots = world, lies, rots
        self.files: dict[Path, bytes] = {}
        self.written: dict[Path, bytes] = {}  # what was acknowledged, whatever came of it
        self.full = False
        self._recent: list[tuple[Path, bytes | None]] = []
        self._db = _connect(self)

    def prepare(self, folder: Path) -> None:
        """Every folder is there, and nothing half-written ever is."""
        del folder
        self.act("open")

    def is_empty(self, folder: Path) -> bool:
        """Return whether no file lies under ``folder``."""
        return not any(folder in path.parents for path in self.files)

    def database(self, path: Path) -> sqlite3.Connection:
        """Return the one database, as its last commit left it."""
        del path
        self.act("open")
        return self._db

    def write(self, path: Path, *chunks: bytes) -> None:
        """Replace a file, whole."""
        kind = "checkpoint" if path.suffix == ".safetensors" else "update"
        self.act(f"before {kind}")
        if self.full:
            self._world.injected["write on a full disk"] += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self._recent = [*self._recent[-_LAST + 1 :], (path, self.files.get(path))]
        self.files[path] = self.written[path] = b"".join(chunks)
        self.act(f"after {kind}")

    def read(self, path: Path) -> bytes | None:
        """Return a file's bytes, or None without one."""
        self.act("read")
        return self.files.get(path)

    def remove(self, path: Path) -> None:
        """Delete a file, if it is there."""
        self.act("remove")
        self.files.pop(path, None)

    def act(self, kind: str) -> None:
        """Pass a boundary of the coordinator's actions."""
        self._world.act(kind)

    def crash(self) -> None:
        """Lose what a power cut takes: open transactions, and what the disk lied about."""
        self._db.rollback()
        rng = self._world.rng
        if self._lies and self._recent and self._world.chance(0.5, "lying disk"):
            for path, before in reversed(self._recent[-rng.randint(1, _LAST) :]):
                self._lose(path, before)
        newest = [path for path in sorted(self.files) if path.suffix == ".safetensors"][-1:]
        for path in newest if self._rots else ():
            if self._world.chance(0.5, "rotten checkpoint"):
                raw = bytearray(self.files[path])
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
                self.files[path] = bytes(raw)
        self._recent = []

    def _lose(self, path: Path, before: bytes | None) -> None:
        torn = self.files.get(path, b"")
        if self._world.rng.random() < 0.5:
            self.files[path] = torn[: self._world.rng.randrange(len(torn) + 1)]
        elif before is None:
            self.files.pop(path, None)
        else:
            self.files[path] = before

    def snapshot(self) -> tuple[dict[Path, bytes], bytes]:
        """Return a backup: all files and the database at one moment."""
        try:
            return dict(self.files), self._db.serialize()
        except sqlite3.OperationalError:  # it has no table yet
            return dict(self.files), b""

    def restore(self, backup: tuple[dict[Path, bytes], bytes]) -> None:
        """Put a backup in the place of everything."""
        self.files = dict(backup[0])
        self._db = _connect(self)  # statements that were prepared for the other one go with it
        if backup[1]:
            self._db.deserialize(backup[1])


class _Connection(sqlite3.Connection):
    """A database whose commits are boundaries, and fail when the disk is full."""

    disk: SimDisk

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        if kind is None:
            self.disk.act("before row")
            if self.disk.full:
                self.rollback()
                raise sqlite3.OperationalError("database or disk is full")
        super().__exit__(kind, error, trace)
        if kind is None:
            self.disk.act("after row")
        return False


def _connect(disk: SimDisk) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", factory=_Connection)
    connection.disk = disk
    return connection
