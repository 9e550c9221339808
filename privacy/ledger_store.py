"""A ledger's SQLite file: its one schema, durable appends, and one writer at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..core.errors import CollegiumError, Interrupted, LedgerTampered, MissingInput, Refused
from ..core.files import sync_folder
from .ledger_rows import GENESIS_HEAD, Row

VERSION = 2
"""SQLite's user_version of a ledger: the form of its rows."""

SCHEMA = (
    """CREATE TABLE entries (
  seq INTEGER PRIMARY KEY, prev TEXT NOT NULL, body TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE, signature BLOB NOT NULL
) STRICT""",
    """CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER entries_in_order BEFORE INSERT ON entries
  WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), -1) + 1 FROM entries)
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)


class Writer:
    """The one connection that appends to a ledger, and the lock that keeps it the only one."""

    def __init__(self, path: Path) -> None:
        """Take the lock and read what is there; raises ``Refused`` when another holds it.

        Nothing is written before ``start``: a ledger that does not verify stays as it was found.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path)
        self._db: sqlite3.Connection | None = None
        try:
            self.is_new, self.rows = _contents(path)
        except BaseException:
            self._lock.release()
            raise

    def start(self) -> None:
        """Open the database for writing, once its rows were verified; raises as reading does."""
        self._db = _connect(self.path)
        try:
            # Rewrites every row that is only in the log: after a failed fsync the log's pages may
            # be in memory alone, however clean the kernel calls them.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            raise _unreadable(self.path, error) from None

    @property
    def is_open(self) -> bool:
        """Return whether rows can be written."""
        return self._db is not None

    def append(self, row: Row) -> None:
        """Write one row and return when it is on disk.

        Raises ``sqlite3.OperationalError`` when the disk fails, ``Refused`` when another writer
        was here, ``LedgerTampered`` when the file is damaged; what is on disk is then uncertain.
        """
        if self._db is None:
            raise Refused(
                "this ledger is closed",
                why="it was closed, or a write failed and what is on disk is uncertain",
                cure="open it again: opening verifies what was written",
            )
        seq, prev = row[0], row[1]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if seq == 0:
                for statement in SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            found = self._db.execute(
                "SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            if (found or (-1, GENESIS_HEAD)) != (seq - 1, prev):
                raise Refused(
                    f"another process wrote to the ledger {self.path.name}",
                    why="two writers could both pass the budget check",
                    cure="stop the other one and open the ledger again",
                )
            self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
            self._db.execute("COMMIT")
            if seq == 0:  # from now on even a torn log leaves the first entry
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                sync_folder(self.path.parent)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise _unreadable(self.path, error) from None

    def close(self) -> None:
        """Close the database and release the lock; a second close does nothing."""
        database, self._db = self._db, None
        try:
            if database is not None:
                database.close()
        finally:
            self._lock.release()


@contextmanager
def open_readonly(path: Path) -> Generator[sqlite3.Connection]:
    """Open a ledger for reading; raises ``MissingInput``, ``LedgerTampered`` or ``Interrupted``.

    The last where disk, memory or rights stand in the way, whatever the file holds.
    """
    if not path.is_file():
        raise MissingInput(f"no ledger at {path}", cure="name a ledger file or a run directory")
    with _opened(path, "ro") as connection:
        yield connection


@contextmanager
def _opened(path: Path, mode: str) -> Generator[sqlite3.Connection]:
    try:
        address = f"{path.resolve().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise _unreadable(path, error) from None


def read_rows(connection: sqlite3.Connection) -> list[Row]:
    """Return the raw rows (seq, prev, body, hash, signature), oldest first.

    Raises ``LedgerTampered`` unless the file has exactly a ledger's table and triggers (a view
    or another trigger could swallow rows), ``Refused`` for one of another version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION and _objects(connection):
        raise Refused(
            f"the ledger has format {version}, this program reads {VERSION}",
            why="its rows hold other fields",
            cure="open it with the version that wrote it",
        )
    if _objects(connection) != frozenset(SCHEMA):
        raise LedgerTampered(
            "the file does not have a ledger's table and triggers",
            why="they keep its rows from being changed, and something changed them",
            cure="restore the ledger from its backup and compare it with the anchor",
        )
    return connection.execute(
        "SELECT seq, prev, body, hash, signature FROM entries ORDER BY seq"
    ).fetchall()


def _objects(connection: sqlite3.Connection) -> frozenset[str]:
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return frozenset(str(statement) for (statement,) in found)


def _contents(path: Path) -> tuple[bool, list[Row]]:
    """Return whether the ledger is yet to be made, and its rows."""
    if path.is_file() and path.stat().st_size == 0:
        return True, []
    try:
        return _read(path, "ro") if path.exists() else (True, [])
    except Interrupted:  # a crash may leave a journal that a writer alone can roll back
        return _read(path, "rw")


def _read(path: Path, mode: str) -> tuple[bool, list[Row]]:
    """Read a file in this mode.

    Table and first entry are one transaction: a file with a table and no row was emptied.
    """
    with _opened(path, mode) as connection:
        if not _objects(connection):
            return True, []
        rows = read_rows(connection)
    if not rows:
        raise LedgerTampered(
            f"the ledger {path.name} holds no entry",
            why="the first one is written together with the file",
            cure="restore the ledger from its backup",
        )
    return False, rows


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        for setting in ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON",
                        "checkpoint_fullfsync=ON", "trusted_schema=OFF"):  # fmt: skip
            connection.execute(f"PRAGMA {setting}")
    except sqlite3.DatabaseError as error:
        raise _unreadable(path, error) from None
    return connection


def _locked(path: Path) -> FileLock:
    lock = FileLock(path.with_name(path.name + ".lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Refused(
            f"the ledger {path.name} is open elsewhere",
            why="with two writers both could pass the budget check",
            cure="stop the other process or close the other ledger first",
        ) from None
    return lock


_MACHINE = frozenset(
    (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
     sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
)  # fmt: skip
"""SQLite's result codes that speak of disk, memory or rights, not of what the file holds."""


def _unreadable(path: Path, error: sqlite3.DatabaseError) -> CollegiumError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    if code & 0xFF in _MACHINE and code != sqlite3.SQLITE_IOERR_SHORT_READ:
        return Interrupted(
            f"{path} could not be read or written",
            why=str(error),
            cure="free some space, mend the disk or the rights, then try again",
        )
    return LedgerTampered(f"{path} is not a readable ledger", why=str(error))
