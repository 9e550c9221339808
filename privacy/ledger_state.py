"""What a ledger's entries add up to: spent mechanisms, cap, known records; and which may follow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.errors import LedgerTampered, Refused
from ..core.mechanism import Budget, MechanismSpec
from .events import Spend
from .ledger_rows import GENESIS_HEAD, Kind, LedgerEntry

Plan = tuple[str, str]
"""One fixed schedule: a job and the digest of the plan that it runs."""


class State:
    """The sum of a ledger's entries, taken in one after the other."""

    def __init__(self, entries: Iterable[LedgerEntry] = ()) -> None:
        """Take in verified entries; raises ``LedgerTampered`` where one contradicts the others."""
        self.entries: list[LedgerEntry] = []
        self.records: set[str] = set()
        self._heads: set[str] = set()
        self._witnessed: set[str] = set()
        self._released: set[tuple[str, str]] = set()
        self._known: dict[tuple[Kind, str, int, int], LedgerEntry] = {}
        self._spent: dict[Plan, dict[MechanismSpec, int]] = {}
        self._budget: Budget | None = None
        self._spent_under: Budget | None = None
        for entry in entries:
            self.check(entry)
            self.take(entry)

    @property
    def head(self) -> str:
        """Return the hash of the newest entry."""
        return self.entries[-1].hash if self.entries else GENESIS_HEAD

    @property
    def budget(self) -> Budget:
        """Return the budget in force; raises ``LedgerTampered`` before the first entry."""
        if self._budget is None:
            raise LedgerTampered("the ledger does not begin with its budget")
        return self._budget

    @property
    def spent_under(self) -> Budget:
        """Return the budget in force at the last reserve: lowering it later spends nothing."""
        return self._spent_under or self.budget

    def knows(self, head: str) -> bool:
        """Return whether an entry has that hash."""
        return head in self._heads

    def witnessed(self, head: str) -> bool:
        """Return whether a peer's signature over that head is on record."""
        return head in self._witnessed

    def released(self, job: str, model_sha256: str) -> bool:
        """Return whether that model's release is on record."""
        return (job, model_sha256) in self._released

    def find(self, kind: Kind, job: str, round: int, attempt: int) -> LedgerEntry | None:
        """Return the reserve, commit or abort of an attempt."""
        return self._known.get((kind, job, round, attempt))

    def spends(self) -> dict[Plan, Spend]:
        """Return every reserve, by job and plan, as (mechanism, noisy steps in all)."""
        return {plan: list(spent.items()) for plan, spent in self._spent.items()}

    def same_asset(self, asset: str, budget: Budget, path: Path) -> None:
        """Raise ``Refused`` unless this ledger is the asset's, under this budget or a larger."""
        genesis, cap = self.entries[0], self.budget
        frozen = (genesis.asset, cap.delta, cap.unit, cap.relation)
        if frozen != (asset, budget.delta, budget.unit, budget.relation):
            raise Refused(
                f"the ledger {path.name} was opened for asset '{genesis.asset}' with {cap}, not"
                f" for '{asset}' with {budget}",
                why="a budget belongs to its asset; delta, unit and relation are frozen",
                cure="use the asset's own ledger, or write its own values into the policy",
            )
        if budget.epsilon > cap.epsilon:
            raise Refused(
                f"asset '{asset}' has a budget of epsilon {cap.epsilon:g}, not {budget.epsilon:g}",
                why="a budget can be lowered, never raised: outputs left under the smaller promise",
                cure=f"write {cap.epsilon:g} or less into the policy",
            )

    def check(self, entry: LedgerEntry) -> None:
        """Raise ``LedgerTampered`` when ``entry`` cannot follow what was taken in so far."""
        begins = not self.entries
        holds = (entry.kind == "genesis") == begins
        if holds and not begins:
            holds = entry.asset == self.entries[0].asset and self._may_follow(entry)
        if not holds:
            raise LedgerTampered(
                f"ledger entry {entry.seq} contradicts the ones before it",
                why=f"a {entry.kind} cannot stand there",
                cure="restore the ledger from its backup and compare it with the anchor",
            )

    def take(self, entry: LedgerEntry) -> None:
        """Take in an entry that ``check`` has let pass."""
        self.entries.append(entry)
        self._heads.add(entry.hash)
        self._known.setdefault((entry.kind, entry.job, entry.round, entry.attempt), entry)
        self._budget = entry.budget or self._budget
        if entry.records:
            self.records.add(entry.records)
        if entry.evidence is not None:
            self._witnessed.add(entry.evidence.head)
        if entry.kind == "release":
            self._released.add((entry.job, entry.model_sha256))
        if entry.spec is not None:
            self._spent_under = self._budget
            spent = self._spent.setdefault((entry.job, entry.plan), {})
            spent[entry.spec] = spent.get(entry.spec, 0) + entry.steps

    def _may_follow(self, entry: LedgerEntry) -> bool:
        cap, new = self.budget, entry.budget
        if new is not None:
            frozen = (new.delta, new.unit, new.relation) == (cap.delta, cap.unit, cap.relation)
            return frozen and new.epsilon <= cap.epsilon
        if entry.spec is not None:
            unit = (entry.spec.unit, entry.spec.relation) == (cap.unit, cap.relation)
            return unit and entry.steps == entry.spec.steps and self._find("reserve", entry) is None
        if entry.kind in ("commit", "abort"):
            reserved = self._find("reserve", entry)
            closed = self._find("commit", entry) or self._find("abort", entry)
            return reserved is not None and closed is None and entry.steps <= reserved.steps
        return entry.evidence is None or self.knows(entry.evidence.head)

    def _find(self, kind: Kind, entry: LedgerEntry) -> LedgerEntry | None:
        return self.find(kind, entry.job, entry.round, entry.attempt)
