"""Which records a data asset holds, as keyed digests: the same records get no fresh budget.

A record has two digests. One is of what the reader found (all columns of a row, a picture's own
pixels): the same file under another plan has it, too. The other is of what the plan reads: the
same values in another format have it, too. Neither depends on file name, row order or split. Both
are evidence against mistakes and renaming, not against somebody who alters every record.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.digest import sha256_hex
from ..core.errors import InvalidInput, LedgerTampered, Refused
from ..core.files import sync_folder

_DOMAIN = b"collegium/fingerprint/1"
_FOUND = b"collegium/fingerprint/2"
_SALT_BYTES = 32
_WAIT_S = 30.0

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS salt (one INTEGER PRIMARY KEY CHECK (one = 1), value BLOB NOT NULL)"
    " STRICT",
    "CREATE TABLE IF NOT EXISTS records (digest BLOB PRIMARY KEY, asset TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS exports (asset TEXT, fingerprint TEXT, PRIMARY KEY (asset,"
    " fingerprint)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS ledgers (asset TEXT PRIMARY KEY, genesis TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Names one export of an asset; holds neither a count nor anything of a single record.

    ``also``: other names of the same records, as an older ledger may know them.
    """

    digest: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """All records of one export as keyed digests: as the plan ``encoded`` them, and as ``found``.

    ``found`` is None for records made in memory, which are nothing but what is encoded.
    """

    encoded: Sequence[bytes]
    found: Sequence[bytes] | None = None

    def __repr__(self) -> str:
        return "Export(records not shown)"

    @property
    def kinds(self) -> tuple[Sequence[bytes], ...]:
        """Return the digests of each kind."""
        return (self.encoded,) if self.found is None else (self.found, self.encoded)

    @property
    def name(self) -> Fingerprint:
        """Return what the ledger writes down: of what was found, where that is known."""
        first, *others = (fingerprint(kind).digest for kind in self.kinds)
        return Fingerprint(digest=first, also=tuple(others))


def record_digests(x: NDArray[Any], y: NDArray[Any], salt: bytes) -> list[bytes]:
    """Return each record's keyed digest (32 bytes): BLAKE2b over its canonical content.

    ``x`` (n, ...) features, taken as float32 with one zero and one NaN; ``y`` (n,) or (n, ...)
    labels, taken as float64 likewise, so that 1 and 1.0 are one label. Raises ``InvalidInput``
    when the lengths differ or something is not a number.
    """
    if len(x) != len(y):
        raise InvalidInput("records and labels differ in number", cure="pass one label per record")
    rows = np.concatenate([_canonical(x, "<f4"), _canonical(y, "<f8")], axis=1)
    size, data = rows.shape[1], rows.reshape(-1).data
    seed = hashlib.blake2b(_DOMAIN, key=salt, digest_size=32)
    found: list[bytes] = []
    for start in range(0, size * len(rows), size):
        digest = seed.copy()  # the key block is hashed once, not once per record
        digest.update(data[start : start + size])
        found.append(digest.digest())
    return found


def found_digests(ids: NDArray[np.uint8], salt: bytes) -> list[bytes]:
    """Return the keyed digests (32 bytes) of records' identities (n, 16)."""
    seed = hashlib.blake2b(_FOUND, key=salt, digest_size=32)
    found: list[bytes] = []
    for each in ids:
        digest = seed.copy()
        digest.update(each.tobytes())
        found.append(digest.digest())
    return found


def fingerprint(digests: Iterable[bytes]) -> Fingerprint:
    """Return the name of a multiset of records: SHA-256 over their sorted keyed digests."""
    return Fingerprint(digest=sha256_hex(_DOMAIN, *sorted(digests)))


class Register:
    """The site's register: to which asset each record (by its keyed digest) belongs.

    One SQLite file (0600) with a random salt of its own, for all assets of the site. It never
    leaves the site; without the salt nobody can test a guess against a fingerprint.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the register.

        Raises ``LedgerTampered`` when it is not readable, ``Refused`` while another process
        holds it.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            sync_folder(path.parent)
        self.salt = self._prepare()

    def knows(self, asset: str, name: str) -> bool:
        """Return whether the export of that fingerprint was taken in as this asset's before."""
        with self._database() as database:
            query = "SELECT 1 FROM exports WHERE asset = ? AND fingerprint = ?"
            return database.execute(query, (asset, name)).fetchone() is not None

    def check(self, asset: str, digests: Sequence[bytes]) -> None:
        """Raise ``Refused`` when any record belongs to another asset; changes nothing."""
        self._take(asset, digests, keep=False)

    def claim(self, asset: str, digests: Sequence[bytes]) -> None:
        """Write down, durably, that these records belong to ``asset``.

        Raises ``Refused``, and writes nothing, when any of them belongs to another asset: it is
        named, but neither a record nor their number.
        """
        self._take(asset, digests, keep=True)

    def ledger_of(self, asset: str) -> str | None:
        """Return the hash of the first entry of the asset's one ledger, None before it is made."""
        with self._database() as database:
            found = database.execute(
                "SELECT genesis FROM ledgers WHERE asset = ?", (asset,)
            ).fetchone()
        return None if found is None else str(found[0])

    def bind(self, asset: str, genesis: str) -> None:
        """Write down, once and for all, which ledger is the asset's.

        Raises ``Refused`` when it is another: a second ledger would be a second budget.
        """
        with self._database() as database:
            database.execute("INSERT OR IGNORE INTO ledgers VALUES (?, ?)", (asset, genesis))
        if self.ledger_of(asset) != genesis:
            raise another_ledger(asset)

    def _prepare(self) -> bytes:
        with self._database() as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    database.execute(statement)
                database.execute("INSERT OR IGNORE INTO salt VALUES (1, ?)", (_fresh_salt(),))
                ((salt,),) = database.execute("SELECT value FROM salt").fetchall()
                database.execute("COMMIT")
            except sqlite3.OperationalError:
                raise
            except (sqlite3.DatabaseError, ValueError) as error:
                raise self._unreadable(error) from None
        return bytes(salt)

    def _take(self, asset: str, digests: Sequence[bytes], *, keep: bool) -> None:
        name = fingerprint(digests).digest
        with self._database() as database:
            known = database.execute(
                "SELECT 1 FROM exports WHERE asset = ? AND fingerprint = ?", (asset, name)
            ).fetchone()
            if known:  # exactly this export was taken in before: nothing can have changed
                return
            database.execute("CREATE TEMP TABLE these (digest BLOB PRIMARY KEY) WITHOUT ROWID")
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT OR IGNORE INTO these VALUES (?)", ((digest,) for digest in sorted(digests))
            )
            other = database.execute(
                "SELECT asset FROM these JOIN records USING (digest) WHERE asset != ?"
                " ORDER BY asset LIMIT 1",
                (asset,),
            ).fetchone()
            if other is not None:
                database.execute("ROLLBACK")
                raise _same_records(asset, other[0])
            if keep:
                database.execute(
                    "INSERT OR IGNORE INTO records SELECT digest, ? FROM these", (asset,)
                )
                database.execute("INSERT INTO exports VALUES (?, ?)", (asset, name))
            database.execute("COMMIT" if keep else "ROLLBACK")

    @contextmanager
    def _database(self) -> Generator[sqlite3.Connection]:
        """Yield a connection; one that another process holds is in use, not damaged."""
        try:
            with closing(self._open()) as database:
                yield database
        except sqlite3.OperationalError as error:
            if not _busy(error):  # full: nothing is wrong with the file
                raise
            raise Refused(
                f"the register of records {self.path.name} is in use",
                why=f"another process has held it for more than {_WAIT_S:g} s",
                cure="end the other process of this site, or wait for it, then try again",
            ) from None

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self.path, isolation_level=None, timeout=_WAIT_S)
            database.execute("PRAGMA temp_store=MEMORY")  # digests on no other disk
            database.execute("PRAGMA synchronous=FULL")
        except sqlite3.DatabaseError as error:
            if _busy(error):
                raise
            raise self._unreadable(error) from None
        return database

    def _unreadable(self, error: Exception) -> LedgerTampered:
        return LedgerTampered(
            f"{self.path.name} is not a readable register of records",
            why=str(error),
            cure="restore it from its backup; a new one would know none of the site's records",
        )


def _busy(error: sqlite3.DatabaseError) -> bool:
    """Return whether another connection holds the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def another_ledger(asset: str) -> Refused:
    """Return the refusal of a second ledger for an asset that has one."""
    return Refused(
        f"asset '{asset}' has another ledger",
        why="the site's register knows its first entry; a second one would be a second budget",
        cure="name the asset's own ledger in [ledger] path, or restore it from its backup",
    )


def _same_records(asset: str, owner: str) -> Refused:
    return Refused(
        f"asset '{asset}' holds records that belong to asset '{owner}'",
        why="the same records under a new name get no fresh budget",
        cure=f"use asset '{owner}' and its ledger, or leave those records out",
    )


def _fresh_salt() -> bytes:
    return os.urandom(_SALT_BYTES)


def _canonical(values: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    """Return (n, bytes) of the values as ``kind``, one zero and one NaN; raises otherwise."""
    try:
        array = np.asarray(values)
        array = array.reshape(len(array), math.prod(array.shape[1:]))
        with np.errstate(over="ignore"):  # beyond float32 is infinite there, however it is read
            numbers = array.astype(kind, order="C")
    except (TypeError, ValueError):
        raise InvalidInput(
            "records and labels must be numbers",
            cure="let the reader turn categories into numbers first",
        ) from None
    numbers += 0.0  # -0.0 + 0.0 = 0.0
    numbers[np.isnan(numbers)] = np.nan
    return numbers.view(np.uint8)
