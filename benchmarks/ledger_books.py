"""Ledgers for the attacks: honest ones, and ones that somebody with a key has written by hand."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collegium.core.digest import canonical_bytes
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import generate_key
from collegium.privacy.ledger import Ledger, open_readonly, read_rows
from collegium.privacy.ledger_rows import GENESIS_HEAD, Row, row_hash
from collegium.privacy.ledger_store import SCHEMA, VERSION

ASSET = "cardiology"
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")
SPEC = MechanismSpec(
    unit="record",
    relation="add-or-remove-one",
    clip_norm=1.0,
    noise_multiplier=20.0,
    sampler="poisson",
    sampling_rate=0.1,
    public_records=100,
    normaliser=10.0,
    steps=1,
    batch_cap=0,
    delta=1e-5,
    trainable_digest="sha256:t",
)
Body = dict[str, Any]


def attempt(round: int, job: str = "job") -> dict[str, Any]:
    """Return the names of a round's first attempt."""
    return {"job": job, "round": round, "attempt": 1}


def open_ledger(folder: Path, key: Ed25519PrivateKey, *, anchored: bool = True) -> Ledger:
    """Open the ledger in ``folder``; its anchor lies in a folder of its own."""
    anchor = folder / "anchor" / "l.anchor" if anchored else None
    return Ledger(folder / "l.sqlite", ASSET, BUDGET, key, anchor=anchor)


def grow(ledger: Ledger, rounds: Iterable[int]) -> None:
    """Reserve and commit these rounds."""
    for number in rounds:
        names = attempt(number)
        ledger.reserve(**names, base_sha256=f"sha256:{number}", spec=SPEC)
        ledger.commit(**names, update_sha256=f"sha256:u{number}")


def honest(folder: Path, rounds: int) -> Ed25519PrivateKey:
    """Make an anchored ledger of so many rounds, closed; return its key."""
    key = generate_key()
    ledger = open_ledger(folder, key)
    grow(ledger, range(1, rounds + 1))
    ledger.close()
    return key


def rows_of(path: Path) -> list[Row]:
    """Return a ledger's raw rows."""
    with open_readonly(path) as connection:
        return read_rows(connection)


def bodies_of(path: Path) -> list[Body]:
    """Return a ledger's bodies as plain values."""
    return [json.loads(row[2]) for row in rows_of(path)]


def chained(bodies: Iterable[Body], sign: Callable[[str], bytes]) -> list[Row]:
    """Return rows of these bodies with a right chain, each hash signed by ``sign``."""
    rows: list[Row] = []
    head = GENESIS_HEAD
    for seq, body in enumerate(bodies):
        text = canonical_bytes(body)
        digest = row_hash(seq, head, text)
        rows.append((seq, head, text.decode(), digest, sign(digest)))
        head = digest
    return rows


def signed(bodies: Iterable[Body], key: Ed25519PrivateKey) -> list[Row]:
    """Return rows of these bodies as the holder of ``key`` can write them."""
    return chained(bodies, lambda digest: key.sign(digest.encode()))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Put rows into a fresh ledger file, triggers and all, as an administrator can."""
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        file.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN")
    database.execute(SCHEMA[0])
    database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
    for statement in SCHEMA[1:]:
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")
    database.close()


def write_anchor(path: Path, row: Row) -> None:
    """Let the anchor remember ``row``, as an administrator of both volumes can."""
    values = {"asset": ASSET, "seq": row[0], "hash": row[3], "signature": row[4].hex()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(canonical_bytes(values | {"format": "collegium/ledger-anchor/1"}))


def noisier(factor: float) -> MechanismSpec:
    """Return the mechanism with so much more noise."""
    return replace(SPEC, noise_multiplier=SPEC.noise_multiplier * factor)
