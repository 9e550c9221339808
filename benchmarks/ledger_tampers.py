"""Tampered, rolled-back and lying ledgers: every one is detected, with the exit code of its kind.

The attacker of a class may hold the disk, an old copy, another key, or the site's own key; each
copy is judged by the auditor's script in a process of its own, and by opening it at the site.
"""

from __future__ import annotations

import copy
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_books import (
    ASSET,
    BUDGET,
    SPEC,
    Body,
    bodies_of,
    chained,
    grow,
    honest,
    noisier,
    open_ledger,
    rows_of,
    signed,
    write,
    write_anchor,
)

from collegium.core.errors import CollegiumError
from collegium.core.signing import fingerprint, generate_key
from collegium.privacy import ledger_verify
from collegium.privacy.ledger_files import export_jsonl
from collegium.privacy.ledger_rows import rotation_message

TAMPERED, ROLLED_BACK, OVER_BUDGET, MISMATCH = 2, 3, 4, 5
ROUNDS = 6


@dataclass(slots=True)
class Case:
    """One ledger under attack: its folder, file, key, and the dice of this copy."""

    folder: Path
    key: Ed25519PrivateKey
    dice: random.Random

    @property
    def file(self) -> Path:
        """Return the ledger."""
        return self.folder / "l.sqlite"

    @property
    def anchor(self) -> Path:
        """Return its anchor."""
        return self.folder / "anchor" / "l.anchor"

    def reserve(self, bodies: list[Body]) -> Body:
        """Return one of the reserves."""
        return self.dice.choice([body for body in bodies if body["kind"] == "reserve"])

    def settle(self, bodies: list[Body]) -> None:
        """Write these bodies with the site's own key, and let the anchor agree."""
        rows = signed(bodies, self.key)
        write(self.file, rows)
        write_anchor(self.anchor, rows[-1])


def edit_body(case: Case) -> None:
    """Change a row's text and nothing else."""
    rows = rows_of(case.file)
    at = case.dice.randrange(1, len(rows))
    seq, prev, body, digest, signature = rows[at]
    rows[at] = (seq, prev, body.replace('"round":', '"round":1', 1), digest, signature)
    write(case.file, rows)


def edit_spec(case: Case) -> None:
    """Claim more noise and hash the whole chain anew, without the key."""
    rows, bodies = rows_of(case.file), bodies_of(case.file)
    case.reserve(bodies)["spec"] = asdict(noisier(2.0))
    old = {row[0]: row[4] for row in rows}
    fresh = chained(bodies, lambda _: b"")
    write(case.file, [(*row[:4], old[row[0]]) for row in fresh])


def delete_middle(case: Case) -> None:
    """Take rows out of the middle."""
    rows = rows_of(case.file)
    at = case.dice.randrange(1, len(rows) - 1)
    write(case.file, rows[:at] + rows[at + 1 :])


def delete_tail(case: Case) -> None:
    """Cut the newest rows off."""
    rows = rows_of(case.file)
    write(case.file, rows[: case.dice.randrange(1, len(rows))])


def swap(case: Case) -> None:
    """Exchange two rows."""
    rows = rows_of(case.file)
    one, other = case.dice.sample(range(1, len(rows)), 2)
    rows[one], rows[other] = (
        (rows[one][0], *rows[other][1:]),
        (rows[other][0], *rows[one][1:]),
    )
    write(case.file, rows)


def insert(case: Case) -> None:
    """Put a copied row in between and hash what follows anew, without the key."""
    rows, bodies = rows_of(case.file), bodies_of(case.file)
    at = case.dice.randrange(1, len(bodies))
    bodies.insert(at, copy.deepcopy(bodies[at]))
    signatures = [row[4] for row in rows]
    signatures.insert(at, signatures[at])
    fresh = chained(bodies, lambda _: b"")
    write(case.file, [(*row[:4], signatures[row[0]]) for row in fresh])


def other_key(case: Case) -> None:
    """Write everything anew with another key, which the first entry then names."""
    thief = generate_key()
    bodies = bodies_of(case.file)
    bodies[0]["public_key"] = fingerprint(thief.public_key())
    bodies = bodies[: case.dice.randrange(1, len(bodies))]
    rows = signed(bodies, thief)
    write(case.file, rows)
    if case.dice.random() < 0.5:
        write_anchor(case.anchor, rows[-1])


def stolen_key(case: Case) -> None:
    """Write a cheaper history with the site's own key; the anchor remembers the true one."""
    bodies = bodies_of(case.file)
    case.reserve(bodies)["spec"] = asdict(noisier(2.0))
    write(case.file, signed(bodies, case.key))


def emptied(case: Case) -> None:
    """Leave table and triggers, and no row."""
    write(case.file, [])


def snapshot(case: Case) -> None:
    """Restore an older copy of the file."""
    ledger = open_ledger(case.folder, case.key)
    ledger.close()
    old = case.file.read_bytes()
    ledger = open_ledger(case.folder, case.key)
    grow(ledger, range(ROUNDS + 1, ROUNDS + 1 + case.dice.randrange(1, 4)))
    ledger.close()
    case.file.write_bytes(old)


def stale_log(case: Case) -> None:
    """Restore an older file beside a newer log, or a newer file beside an older log."""
    log = case.folder / "l.sqlite-wal"
    old = case.file.read_bytes()
    ledger = open_ledger(case.folder, case.key)
    grow(ledger, range(ROUNDS + 1, ROUNDS + 1 + case.dice.randrange(8, 12)))
    first = log.read_bytes()
    ledger.close()
    ledger = open_ledger(case.folder, case.key)
    middle = case.file.read_bytes()
    grow(ledger, range(ROUNDS + 20, ROUNDS + 20 + case.dice.randrange(1, 5)))
    second = log.read_bytes()
    ledger.close()
    store, stale = case.dice.choice([(old, second), (middle, first)])
    case.file.write_bytes(store)
    log.write_bytes(stale)
    (case.folder / "l.sqlite-shm").unlink(missing_ok=True)


def forked(case: Case) -> None:
    """Go on from an older copy on another machine, without the anchor."""
    bodies = bodies_of(case.file)
    at = case.dice.randrange(1, len(bodies) - 1)
    write(case.file, rows_of(case.file)[:at])
    twin = open_ledger(case.folder, case.key, anchored=False)
    grow(twin, range(100, 100 + case.dice.randrange(1, 2 + len(bodies))))
    twin.close()


def forged_rotation(case: Case) -> None:
    """Hand over to the thief's key: without the old key, or with a stolen one."""
    thief, rows, bodies = generate_key(), rows_of(case.file), bodies_of(case.file)
    name, last = fingerprint(thief.public_key()), rows[-1]
    message = rotation_message(ASSET, len(rows), last[3], name)
    body = {"kind": "key-rotate", "at": bodies[-1]["at"], "asset": ASSET, "public_key": name}
    bodies.append(body | {"proof": thief.sign(message).hex()})
    signer = thief if case.dice.random() < 0.5 else case.key
    fresh = [*rows, signed(bodies, signer)[-1]]
    write(case.file, fresh)
    write_anchor(case.anchor, fresh[-1])


def lowered_claim(case: Case) -> None:
    """The site itself claims less than it has spent."""
    bodies = bodies_of(case.file)
    case.reserve(bodies)["claim"]["epsilon"] *= case.dice.uniform(0.5, 0.999)
    case.settle(bodies)


def over_budget(case: Case) -> None:
    """The site itself reserves more than its budget, with honest claims."""
    bodies = bodies_of(case.file)
    most = case.dice.uniform(0.3, 0.95) * bodies[-2]["claim"]["epsilon"]
    bodies[0]["budget"]["epsilon"] = most
    case.settle(bodies)


def raised_cap(case: Case) -> None:
    """The site itself raises its cap, or widens delta, by a policy entry."""
    bodies = bodies_of(case.file)
    wider = case.dice.choice([{"epsilon": 2 * BUDGET.epsilon}, {"delta": 2 * BUDGET.delta}])
    entry = {"kind": "policy", "at": bodies[-1]["at"], "asset": ASSET, "records": "", "note": ""}
    at = case.dice.randrange(1, len(bodies))
    bodies.insert(at, entry | {"budget": asdict(BUDGET) | wider})
    case.settle(bodies)


def unpaid_commit(case: Case) -> None:
    """The site itself commits what it has not reserved, or commits it twice."""
    bodies = bodies_of(case.file)
    done = copy.deepcopy(case.dice.choice([b for b in bodies if b["kind"] == "commit"]))
    done["attempt"] += case.dice.randrange(2)
    bodies.append(done)
    case.settle(bodies)


def reserved_twice(case: Case) -> None:
    """The site itself pays once and books the same attempt again, for another model."""
    bodies = bodies_of(case.file)
    again = copy.deepcopy(case.reserve(bodies))
    bodies.append(again | {"base_sha256": "sha256:other"})
    case.settle(bodies)


def truncated_file(case: Case) -> None:
    """Cut the file short, or write rubbish into it."""
    raw = bytearray(case.file.read_bytes())
    at = case.dice.randrange(100, len(raw) - 600)
    case.file.write_bytes(raw[:at] if case.dice.random() < 0.5 else b"\0" * 200 + bytes(raw))


CLASSES: Mapping[str, tuple[Callable[[Case], None], frozenset[int]]] = {
    "a row edited": (edit_body, frozenset({TAMPERED})),
    "a mechanism edited, chain rehashed": (edit_spec, frozenset({TAMPERED})),
    "a row deleted": (delete_middle, frozenset({TAMPERED})),
    "the tail deleted": (delete_tail, frozenset({ROLLED_BACK})),
    "rows swapped": (swap, frozenset({TAMPERED})),
    "a row inserted": (insert, frozenset({TAMPERED})),
    "forged with another key": (other_key, frozenset({TAMPERED})),
    "rewritten with the stolen key": (stolen_key, frozenset({ROLLED_BACK})),
    "emptied": (emptied, frozenset({TAMPERED})),
    "an older snapshot": (snapshot, frozenset({ROLLED_BACK})),
    "a stale log mixed in": (stale_log, frozenset({TAMPERED, ROLLED_BACK})),
    "a forked copy": (forked, frozenset({ROLLED_BACK})),
    "a forged change of key": (forged_rotation, frozenset({TAMPERED})),
    "an epsilon claim lowered": (lowered_claim, frozenset({MISMATCH})),
    "over budget": (over_budget, frozenset({OVER_BUDGET})),
    "the cap raised": (raised_cap, frozenset({TAMPERED})),
    "a commit without a reserve": (unpaid_commit, frozenset({TAMPERED})),
    "an attempt reserved twice": (reserved_twice, frozenset({TAMPERED})),
    "a damaged file": (truncated_file, frozenset({TAMPERED})),
}
"""Each class with the exit codes that it may have."""


@dataclass(slots=True)
class Seen:
    """How often a class was tried, detected with its code, and refused by the site itself."""

    tried: int = 0
    detected: int = 0
    refused_at_site: int = 0
    codes: dict[int, int] = field(default_factory=dict[int, int])


def run(each: int, seed: int, *, classes: Mapping[str, Any] = CLASSES) -> dict[str, Seen]:
    """Try every class ``each`` times, alternately on the ledger and on its export."""
    found: dict[str, Seen] = {}
    for number, (name, (attack, expected)) in enumerate(classes.items()):
        seen = found[name] = Seen()
        for copy_number in range(each):
            folder = Path(tempfile.mkdtemp(prefix="tamper"))
            try:
                key = honest(folder, ROUNDS)
                dice = random.Random(1000 * seed + 100 * number + copy_number)
                case = Case(folder, key, dice)
                attack(case)
                code = judged(case, exported=copy_number % 2 == 1)
                seen.refused_at_site += _refused(case)
            finally:
                shutil.rmtree(folder)
            seen.tried += 1
            seen.detected += code in expected
            seen.codes[code] = seen.codes.get(code, 0) + 1
    return found


def judged(case: Case, *, exported: bool) -> int:
    """Return the exit code of the auditor's script on the ledger, or on its export."""
    file = case.file
    if exported:
        try:
            (case.folder / "l.jsonl").write_bytes(export_jsonl(file))
            file = case.folder / "l.jsonl"
        except (CollegiumError, sqlite3.Error):
            pass  # what cannot even be exported is judged as it is
    words = ["--key", fingerprint(case.key.public_key()), "--anchor", str(case.anchor)]
    script = ledger_verify.__file__
    done = subprocess.run(
        [sys.executable, script, str(file), *words], capture_output=True, check=False
    )
    return done.returncode


def _refused(case: Case) -> bool:
    """Return whether the site refuses to go on with that ledger."""
    try:
        ledger = open_ledger(case.folder, case.key)
    except CollegiumError:
        return True
    try:
        ledger.reserve(job="job", round=500, attempt=1, base_sha256="sha256:b", spec=SPEC)
    except CollegiumError:
        return True
    finally:
        ledger.close()
    return False
