"""What the coordinator's store asks of a disk: whole files or none, and a database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Protocol

from ..core.files import remove_partials, write_atomic


class Disk(Protocol):
    """Files that survive a crash once ``write`` has returned; raises ``OSError`` as disks do."""

    def prepare(self, folder: Path) -> None:
        """Make ``folder`` and clear what interrupted writes left in it."""
        ...

    def is_empty(self, folder: Path) -> bool:
        """Return whether there is nothing in ``folder``."""
        ...

    def database(self, path: Path) -> sqlite3.Connection:
        """Open or create an SQLite database whose commits are durable."""
        ...

    def write(self, path: Path, *chunks: bytes) -> None:
        """Replace a file by the joined chunks: after a crash it is the old one or the new one."""
        ...

    def read(self, path: Path) -> bytes | None:
        """Return a file's bytes, or None without one."""
        ...

    def remove(self, path: Path) -> None:
        """Delete a file, if it is there."""
        ...


class LocalDisk:
    """This machine's file system, every write synced; SQLite with ``synchronous=FULL``."""

    def prepare(self, folder: Path) -> None:
        """Make ``folder`` and clear what interrupted writes left in it."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_partials(folder)

    def is_empty(self, folder: Path) -> bool:
        """Return whether there is nothing in ``folder``."""
        return next(folder.iterdir(), None) is None

    def database(self, path: Path) -> sqlite3.Connection:
        """Open a database in write-ahead mode; another thread may use it."""
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def write(self, path: Path, *chunks: bytes) -> None:
        """Write beside the file, sync, rename, sync the folder."""
        write_atomic(path, *chunks)

    def read(self, path: Path) -> bytes | None:
        """Return a file's bytes, or None without one."""
        return path.read_bytes() if path.is_file() else None

    def remove(self, path: Path) -> None:
        """Delete a file, if it is there."""
        path.unlink(missing_ok=True)
