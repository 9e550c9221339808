"""The site's own record of what its data asset has spent: written before the first gradient.

SQLite with ``synchronous=FULL`` and append-only triggers; every row holds canonical JSON, is
chained by SHA-256 to the row before it and signed by the site. Epsilon is recomputed from the
rows at each reserve; a stored epsilon is never trusted. A reserve is never refunded.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..core.digest import canonical_bytes, sha256_hex
from ..core.errors import LedgerTampered, MissingInput, OverBudget, Refused
from ..core.mechanism import Budget, MechanismSpec
from .accountant import Spend, epsilon_of

Kind = Literal["genesis", "reserve", "commit"]
GENESIS_HEAD = "sha256:" + "0" * 64

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, prev TEXT NOT NULL, body TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE, signature BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS entries_no_update BEFORE UPDATE ON entries
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_no_delete BEFORE DELETE ON entries
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_in_order BEFORE INSERT ON entries
  WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), -1) + 1 FROM entries)
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One row: what was reserved or done, for which job, round and attempt.

    ``at`` is seconds since the epoch; ``steps`` are the noisy steps that a reserve charges;
    ``base_sha256`` is the model they start from; ``update_sha256`` (commit) names the bytes
    that were made of them.
    """

    seq: int
    prev: str
    at: float
    asset: str
    kind: Kind
    job: str = ""
    round: int = 0
    attempt: int = 0
    base_sha256: str = ""
    spec: MechanismSpec | None = None
    steps: int = 0
    update_sha256: str = ""
    budget: Budget | None = None
    hash: str = ""
    signature: bytes = b""


class Ledger:
    """An asset's append-only ledger; one process and one connection write it."""

    def __init__(self, path: Path, asset: str, budget: Budget, key: Ed25519PrivateKey) -> None:
        """Open or create the ledger at ``path``.

        Raises ``LedgerTampered`` when the chain does not hold, ``Refused`` when the ledger
        belongs to another asset or was opened with another budget, unit or relation.
        """
        self.path, self.asset, self.budget = path, asset, budget
        self._key = key
        self._lock = threading.RLock()
        self._entries: list[LedgerEntry] = []
        self._known: dict[tuple[Kind, str, int, int], LedgerEntry] = {}
        self._spent: dict[str, dict[MechanismSpec, int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = _connect(path)
        self._db.executescript(_SCHEMA)
        entries = verify_chain(read_rows(self._db), key.public_key())
        if entries:
            _same_genesis(entries[0], asset, budget, path)
        for entry in entries:
            self._take_in(entry)
        if not entries:
            self._append("genesis", budget=budget)

    @property
    def head(self) -> str:
        """Return the hash of the newest entry."""
        return self._entries[-1].hash

    def knows(self, head: str) -> bool:
        """Return whether an entry of this ledger has that hash: nothing after it was lost."""
        return any(entry.hash == head for entry in reversed(self._entries))

    def epsilon(self, *, job: str | None = None) -> float:
        """Return epsilon of all reserves on this asset (or of one job), at the budget's delta."""
        return epsilon_of(self.spend(job=job), self.budget.delta)

    def spend(self, *, job: str | None = None) -> Spend:
        """Return all reserves on this asset (or of one job) as (mechanism, noisy steps in all)."""
        with self._lock:
            return [
                (spec, steps)
                for name, spent in self._spent.items()
                if job in (None, name)
                for spec, steps in spent.items()
            ]

    def reserve(
        self, *, job: str, round: int, attempt: int, base_sha256: str, spec: MechanismSpec
    ) -> bool:
        """Charge ``spec.steps`` noisy steps, durably; return False when already charged.

        The same (job, round, attempt) is charged once; with another base model or mechanism it
        is ``Refused``. Raises ``OverBudget`` when the asset's epsilon would exceed its budget.
        """
        with self._lock:
            if (known := self._find("reserve", job, round, attempt)) is not None:
                if (known.base_sha256, known.spec) != (base_sha256, spec):
                    raise Refused(
                        f"round {round}, attempt {attempt} was reserved for another model or"
                        " mechanism",
                        why="one reserve pays for one base model",
                        cure="start a new attempt, which is charged anew",
                    )
                return False
            self._check_budget(spec)
            self._append(
                "reserve",
                job=job,
                round=round,
                attempt=attempt,
                base_sha256=base_sha256,
                spec=spec,
                steps=spec.steps,
            )
            return True

    def commit(self, *, job: str, round: int, attempt: int, update_sha256: str) -> None:
        """Record which bytes a reserve produced; a repeated commit changes nothing."""
        with self._lock:
            if self._find("commit", job, round, attempt) is None:
                self._append(
                    "commit",
                    job=job,
                    round=round,
                    attempt=attempt,
                    update_sha256=update_sha256,
                )

    def committed(self, *, job: str, round: int, attempt: int) -> str | None:
        """Return the digest of the bytes that may have left for this reserve, or None."""
        entry = self._find("commit", job, round, attempt)
        return None if entry is None else entry.update_sha256

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries, oldest first."""
        return tuple(self._entries)

    def close(self) -> None:
        """Close the database and fold its write-ahead log in."""
        self._db.close()

    def _check_budget(self, spec: MechanismSpec) -> None:
        if (spec.unit, spec.relation) != (self.budget.unit, self.budget.relation):
            raise Refused(
                f"the plan protects a {spec.unit} under {spec.relation}, the asset's budget a"
                f" {self.budget.unit} under {self.budget.relation}",
                why="one epsilon cannot bound both",
                cure="agree on one unit and relation",
            )
        after = epsilon_of([*self.spend(), (spec, spec.steps)], self.budget.delta)
        if after > self.budget.epsilon:
            raise OverBudget(
                f"asset '{self.asset}' would reach epsilon {after:.4f} of {self.budget.epsilon:g}",
                why="the site's budget covers everything ever computed from this asset",
                cure="plan fewer rounds or more noise, or let the site raise its own budget",
            )

    def _find(self, kind: Kind, job: str, round: int, attempt: int) -> LedgerEntry | None:
        return self._known.get((kind, job, round, attempt))

    def _take_in(self, entry: LedgerEntry) -> None:
        self._entries.append(entry)
        self._known.setdefault((entry.kind, entry.job, entry.round, entry.attempt), entry)
        if entry.spec is not None:
            spent = self._spent.setdefault(entry.job, {})
            spent[entry.spec] = spent.get(entry.spec, 0) + entry.steps

    def _append(self, kind: Kind, **values: Any) -> None:
        last = self._entries[-1] if self._entries else None
        seq, prev = (last.seq + 1, last.hash) if last else (0, GENESIS_HEAD)
        draft = LedgerEntry(
            seq=seq, prev=prev, at=time.time(), asset=self.asset, kind=kind, **values
        )
        body = canonical_bytes(_body(draft))
        digest = _hash(seq, prev, body)
        signature = self._key.sign(digest.encode())
        with self._db:
            self._db.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
                (seq, prev, body.decode(), digest, signature),
            )
        self._take_in(_entry(seq, prev, body.decode(), digest, signature))


@contextmanager
def open_readonly(path: Path) -> Generator[sqlite3.Connection]:
    """Open a ledger for reading; raises ``MissingInput`` or ``LedgerTampered``."""
    if not path.is_file():
        raise MissingInput(f"no ledger at {path}", cure="name a ledger file or a run directory")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        raise LedgerTampered(f"{path} is not a readable ledger", why=str(error)) from None
    finally:
        connection.close()


def read_rows(connection: sqlite3.Connection) -> list[tuple[int, str, str, str, bytes]]:
    """Return the raw rows (seq, prev, body, hash, signature), oldest first."""
    return connection.execute(
        "SELECT seq, prev, body, hash, signature FROM entries ORDER BY seq"
    ).fetchall()


def verify_chain(
    rows: list[tuple[int, str, str, str, bytes]], key: Ed25519PublicKey | None
) -> list[LedgerEntry]:
    """Return the entries once sequence, chain and (with a key) every signature hold.

    Raises ``LedgerTampered`` naming the first entry that does not.
    """
    entries: list[LedgerEntry] = []
    head = GENESIS_HEAD
    for expected, (seq, prev, body, digest, signature) in enumerate(rows):
        if seq != expected or prev != head or digest != _hash(seq, prev, body.encode()):
            raise LedgerTampered(
                f"ledger entry {expected} does not follow from the one before it",
                why="an entry was edited, removed or inserted",
                cure="restore the ledger from its backup and compare it with the anchor",
            )
        if key is not None:
            try:
                key.verify(signature, digest.encode())
            except InvalidSignature:
                raise LedgerTampered(
                    f"ledger entry {expected} is not signed by this site's key",
                    why="another key wrote it",
                    cure="open the ledger with the key that made it",
                ) from None
        entries.append(_entry(seq, prev, body, digest, signature))
        head = digest
    return entries


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.DatabaseError as error:
        raise LedgerTampered(f"{path} is not a readable ledger", why=str(error)) from None
    return connection


def _same_genesis(genesis: LedgerEntry, asset: str, budget: Budget, path: Path) -> None:
    if (genesis.asset, genesis.budget) != (asset, budget):
        raise Refused(
            f"the ledger {path.name} was opened for asset '{genesis.asset}' with"
            f" {genesis.budget}, not for '{asset}' with {budget}",
            why="a budget belongs to its asset and is frozen in the first entry",
            cure="use the asset's own ledger",
        )


def _hash(seq: int, prev: str, body: bytes) -> str:
    domain = b"collegium/ledger/1"
    return sha256_hex(
        len(domain).to_bytes(4, "big"), domain, seq.to_bytes(8, "big"), prev.encode(), body
    )


def _body(entry: LedgerEntry) -> dict[str, Any]:
    values = asdict(entry)
    for name in ("seq", "prev", "hash", "signature"):
        del values[name]
    return values


def _entry(seq: int, prev: str, body: str, digest: str, signature: bytes) -> LedgerEntry:
    try:
        values = cast(dict[str, Any], json.loads(body))
        if values["spec"] is not None:
            values["spec"] = MechanismSpec(**values["spec"])
        if values["budget"] is not None:
            values["budget"] = Budget(**values["budget"])
        return LedgerEntry(seq=seq, prev=prev, hash=digest, signature=signature, **values)
    except (ValueError, KeyError, TypeError):
        raise LedgerTampered(
            f"ledger entry {seq} is well hashed but is no entry of this version",
            why="another program wrote it, or it was forged without the site's key",
            cure="verify the ledger with the site's public key",
        ) from None
