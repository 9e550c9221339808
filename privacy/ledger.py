"""The site's own record of what its data asset has spent: written before the first gradient.

Append-only SQLite (``ledger_store``); every row is canonical JSON, chained by SHA-256 to the one
before and signed by the site (``ledger_rows``); an anchor on another path (``ledger_anchor``)
tells a rolled-back ledger. Epsilon is recomputed from the rows at each reserve; a stored one is
only a claim. A reserve is never refunded.
"""

from __future__ import annotations

import platform
import threading
import time
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..core.errors import LedgerRolledBack, OverBudget, Refused
from ..core.mechanism import Budget, MechanismSpec
from ..core.signing import fingerprint as key_name
from ..core.signing import verify
from .accountant import enforced_bound, epsilon_of
from .events import Spend
from .fingerprint import Fingerprint
from .ledger_anchor import Anchor
from .ledger_rows import (
    GENESIS_HEAD,
    Claim,
    Kind,
    LedgerEntry,
    Witness,
    body_of,
    rotation_message,
    row_hash,
    verify_chain,
)
from .ledger_state import State
from .ledger_store import Writer, open_readonly, read_rows

__all__ = [
    "GENESIS_HEAD", "Ledger", "LedgerEntry", "open_readonly", "read_rows",
    "verify_chain",
]  # fmt: skip


class Ledger:
    """An asset's append-only ledger; one process and one object write it at a time."""

    def __init__(
        self,
        path: Path,
        asset: str,
        budget: Budget,
        key: Ed25519PrivateKey,
        *,
        anchor: Path | None = None,
        records: Fingerprint | None = None,
    ) -> None:
        """Open or create the ledger at ``path``; a smaller epsilon than before holds from now on.

        Raises ``LedgerTampered`` when the chain does not hold, ``LedgerRolledBack`` when the
        anchor has seen more, ``Refused`` when another writer holds it, the anchor is missing,
        the ledger belongs to another asset, the budget is larger or in another unit, relation
        or delta, or ``records`` names an export that was not attached.
        """
        self.path, self.asset, self.budget = path, asset, budget
        self._key = key
        self._lock = threading.RLock()
        self._anchor = None if anchor is None else Anchor(anchor)
        self._writer = Writer(path)
        self._records = records
        try:
            self._state = State(verify_chain(self._writer.rows, key.public_key()))
            self._open(budget)
        except BaseException:
            self._writer.close()
            raise

    @property
    def head(self) -> str:
        """Return the hash of the newest entry."""
        return self._state.head

    @property
    def is_open(self) -> bool:
        """Return whether it can still be written; it closes itself when a write fails."""
        return self._writer.is_open

    def knows(self, head: str) -> bool:
        """Return whether an entry of this ledger has that hash: nothing after it was lost."""
        return self._state.knows(head)

    def epsilon(self, *, job: str | None = None) -> float:
        """Return epsilon of all reserves on this asset (or of one job), at the budget's delta.

        It holds for a schedule fixed beforehand; ``enforced`` is what the cap is held against.
        """
        return epsilon_of(self.spend(job=job), self.budget.delta)

    def enforced(self) -> float:
        """Return the epsilon that the cap is held against, whatever was chosen after what."""
        with self._lock:
            return enforced_bound(self._state.spends(), self.budget.delta).epsilon

    def spends(self) -> dict[tuple[str, str], Spend]:
        """Return all reserves on this asset by (job, plan): one fixed schedule each."""
        with self._lock:
            return self._state.spends()

    def spend(self, *, job: str | None = None) -> Spend:
        """Return all reserves on this asset (or of one job) as (mechanism, noisy steps in all)."""
        with self._lock:
            spends = self._state.spends().items()
            return [row for (name, _), spend in spends if job in (None, name) for row in spend]

    def reserve(
        self,
        *,
        job: str,
        round: int,
        attempt: int,
        base_sha256: str,
        spec: MechanismSpec,
        plan: str = "",
        rng: str = "",
        planned: Spend = (),
    ) -> bool:
        """Charge ``spec.steps`` noisy steps, durably; return False when already charged.

        The same (job, round, attempt) is charged once; with another base model, mechanism or
        plan, or after an abort, it is ``Refused``. Raises ``OverBudget`` when the asset's epsilon
        would exceed its budget. ``plan`` is the signed plan's digest, ``rng`` the noise source.
        ``planned`` is what the plan still holds of other mechanisms: it must stay affordable, so
        that, however often a round is asked again, all together is part of one fixed schedule.
        """
        with self._lock:
            if (known := self._state.find("reserve", job, round, attempt)) is not None:
                self._same_reserve(known, (base_sha256, spec, plan))
                return False
            self._own_records()
            self._append(
                "reserve",
                job=job,
                round=round,
                attempt=attempt,
                plan=plan,
                base_sha256=base_sha256,
                spec=spec,
                steps=spec.steps,
                claim=self._affordable(job, plan, spec, planned),
                versions=dict(_versions()),
                rng=rng,
            )
            return True

    def commit(
        self, *, job: str, round: int, attempt: int, update_sha256: str, steps: int | None = None
    ) -> None:
        """Record which bytes a reserve produced and the steps executed (default: all reserved).

        A repeated commit changes nothing. Raises ``Refused`` without an open reserve, and for
        other bytes than those that were committed: one reserve pays for one release.
        """
        with self._lock:
            if (known := self._state.find("commit", job, round, attempt)) is not None:
                if known.update_sha256 != update_sha256:
                    raise Refused(
                        f"round {round}, attempt {attempt} was committed with other bytes",
                        why="a second draw under one reserve would be a second release",
                        cure="send the stored bytes, or start a new attempt",
                    )
                return
            reserved = self._open_reserve(job, round, attempt)
            executed = reserved.steps if steps is None else steps
            if not 0 <= executed <= reserved.steps:
                raise Refused(
                    f"{executed} steps were executed on a reserve of {reserved.steps}",
                    why="what was not reserved was not charged",
                )
            self._append(
                "commit",
                job=job,
                round=round,
                attempt=attempt,
                steps=executed,
                update_sha256=update_sha256,
            )

    def committed(self, *, job: str, round: int, attempt: int) -> str | None:
        """Return the digest of the bytes that may have left for this reserve, or None."""
        entry = self._state.find("commit", job, round, attempt)
        return None if entry is None else entry.update_sha256

    def abort(self, *, job: str, round: int, attempt: int, note: str = "") -> None:
        """Give a reserve up: nothing is refunded, and it can be neither used nor committed.

        A repeated abort changes nothing. Raises ``Refused`` without an open reserve.
        """
        with self._lock:
            if self._state.find("abort", job, round, attempt) is None:
                self._open_reserve(job, round, attempt)
                self._append("abort", job=job, round=round, attempt=attempt, note=note)

    def release(self, *, model_sha256: str, job: str = "", round: int = 0, note: str = "") -> None:
        """Record which model left; the same model of the same job is recorded once."""
        with self._lock:
            if not self._state.released(job, model_sha256):
                self._append("release", job=job, round=round, model_sha256=model_sha256, note=note)

    def attach(self, records: Fingerprint, *, note: str) -> None:
        """Declare, signed, that another export holds this asset's records; a known one is kept."""
        with self._lock:
            if records.digest not in self._state.records:
                self._append("policy", records=records.digest, note=note)
            self._records = records

    def witness(
        self, *, head: str, key: Ed25519PublicKey, message: bytes, signature: bytes
    ) -> None:
        """Keep a peer's signature over a message that names a head of this ledger.

        A head is kept once. Raises ``Refused`` when the signature does not hold or the message
        does not name the head, ``LedgerRolledBack`` when this ledger does not hold it.
        """
        if not verify(key, signature, message) or head.encode() not in message:
            raise Refused(
                "the countersigned head is not signed by that key",
                why="only a peer's signature shows that it has seen this ledger",
            )
        with self._lock:
            if not self.knows(head):
                raise LedgerRolledBack(
                    "the ledger is older than a head that was countersigned, or forked from it",
                    why=f"a peer has signed the head {head[:19]}, which it does not hold",
                    cure="restore the newest copy of the ledger; entries are never cut off",
                )
            if not self._state.witnessed(head):
                evidence = Witness(
                    head=head,
                    key=key_name(key),
                    message=message.hex(),
                    signature=signature.hex(),
                )
                self._append("witness", evidence=evidence)

    def rotate(self, new: Ed25519PrivateKey) -> None:
        """Hand over to a new key: it signs the handover, the old key the entry."""
        with self._lock:
            name, last = key_name(new.public_key()), self._state.entries[-1]
            message = rotation_message(self.asset, last.seq + 1, last.hash, name)
            self._append("key-rotate", public_key=name, proof=new.sign(message).hex())
            self._key = new

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries, oldest first."""
        return tuple(self._state.entries)

    def close(self) -> None:
        """Close the database, fold its log in, and let another writer open it."""
        with self._lock:
            self._writer.close()

    def _open(self, budget: Budget) -> None:
        """Check anchor, asset, budget and records; make a new ledger's first entry."""
        entries, anchor = self._state.entries, self._anchor
        if anchor is not None:
            if (mark := anchor.read()) is not None:
                anchor.check(mark, entries)
            elif len(entries) > 1:  # with the first entry alone the crash came before the anchor
                anchor.refuse_missing()
        if entries:
            self._state.same_asset(self.asset, budget, self.path)
            self._own_records(opening=True)
        self._writer.start()
        if not entries:
            records = "" if self._records is None else self._records.digest
            own = key_name(self._key.public_key())
            self._append("genesis", budget=budget, public_key=own, records=records)
        elif anchor is not None:
            anchor.write(entries[-1])
        if budget.epsilon < self._state.budget.epsilon:
            self._append("policy", budget=budget, note="the cap was lowered")

    def _affordable(self, job: str, plan: str, spec: MechanismSpec, planned: Spend) -> Claim:
        """Return what the asset has spent with ``spec``; raises ``Refused`` or ``OverBudget``."""
        budget = self.budget
        if (spec.unit, spec.relation) != (budget.unit, budget.relation):
            raise Refused(
                f"the plan protects a {spec.unit} under {spec.relation}, the asset's budget a"
                f" {budget.unit} under {budget.relation}",
                why="one epsilon cannot bound both",
                cure="agree on one unit and relation",
            )
        spends = self._state.spends()
        spends[job, plan] = [*spends.get((job, plan), ()), (spec, spec.steps)]
        spent = enforced_bound(spends, budget.delta)
        after = spent
        if planned:
            spends[job, plan] = [*spends[job, plan], *planned]
            after = enforced_bound(spends, budget.delta)
        if not after.epsilon <= budget.epsilon:
            raise OverBudget(
                f"asset '{self.asset}' would reach epsilon {after.epsilon:.4f} of"
                f" {budget.epsilon:g}",
                why="the site's budget covers everything ever computed from this asset",
                cure="plan fewer rounds or more noise: a budget can be lowered, never raised",
            )
        return Claim(epsilon=spent.epsilon, method=spent.method, interval=spent.interval)

    def _same_reserve(self, known: LedgerEntry, wanted: tuple[str, MechanismSpec, str]) -> None:
        aborted = self._state.find("abort", known.job, known.round, known.attempt) is not None
        if aborted or (known.base_sha256, known.spec, known.plan) != wanted:
            what = "given up" if aborted else "reserved for another model, mechanism or plan"
            raise Refused(
                f"round {known.round}, attempt {known.attempt} was {what}",
                why="one reserve pays for one base model",
                cure="start a new attempt, which is charged anew",
            )

    def _open_reserve(self, job: str, round: int, attempt: int) -> LedgerEntry:
        reserved = self._state.find("reserve", job, round, attempt)
        if reserved is None or any(
            self._state.find(kind, job, round, attempt) for kind in ("commit", "abort")
        ):
            raise Refused(
                f"round {round}, attempt {attempt} has no open reserve",
                why="a reserve is used or given up once",
                cure="start a new attempt, which is charged anew",
            )
        return reserved

    def _own_records(self, *, opening: bool = False) -> None:
        """Raise ``Refused`` unless the records in use are attached to this asset."""
        if self._records is None:
            if self._state.records and not opening:
                raise Refused(
                    f"the records for asset '{self.asset}' were not shown to its ledger",
                    why="it knows this asset's exports, and charges for these alone",
                    cure="open it with the records' fingerprint",
                )
        elif self._state.entries and self._state.records.isdisjoint(
            (self._records.digest, *self._records.also)
        ):
            raise Refused(
                f"this is an unknown export of asset '{self.asset}'",
                why="its budget belongs to the records that the ledger knows",
                cure="compare it with the last export; if it is one of this asset, attach it:"
                " `collegium site approve SITE.toml --attach NOTE`",
            )

    def _append(self, kind: Kind, **values: Any) -> None:
        """Write an entry and the anchor; without both on disk nothing is acknowledged."""
        entries = self._state.entries
        seq, prev = (len(entries), entries[-1].hash) if entries else (0, GENESIS_HEAD)
        draft = LedgerEntry(
            seq=seq, prev=prev, at=time.time(), asset=self.asset, kind=kind, **values
        )
        body = body_of(draft)
        digest = row_hash(seq, prev, body)
        entry = replace(draft, hash=digest, signature=self._key.sign(digest.encode()))
        self._state.check(entry)
        try:
            self._writer.append((seq, prev, body.decode(), digest, entry.signature))
            if self._anchor is not None:
                self._anchor.write(entry)
        except BaseException:  # what is on disk is uncertain: whoever goes on must verify it anew
            self._writer.close()
            raise
        self._state.take(entry)
        self.budget = self._state.budget


@cache
def _versions() -> dict[str, str]:
    """Return what computed and recorded the spend: Python and the libraries that matter."""

    def found(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:  # used from a checkout that was never installed
            return "not installed"

    names = ("collegium", "cryptography", "dp-accounting", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: found(name) for name in names}}
