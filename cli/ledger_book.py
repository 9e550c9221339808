"""One verified ledger as a person or a program reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from rich.console import Console

    from ..core.mechanism import Budget
    from ..privacy.ledger import LedgerEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One verified ledger; both epsilons are recomputed, ``signed`` says if signatures were too.

    The cap is held against ``epsilon``; ``epsilon_fixed`` is the smaller figure that would hold
    had all plans been chosen beforehand. ``cap`` was in force at the last reserve.
    """

    path: Path
    asset: str
    budget: Budget
    cap: float
    entries: Sequence[LedgerEntry]
    epsilon: float
    epsilon_fixed: float
    plans: int
    signed: bool

    @property
    def head(self) -> str:
        """Return the hash of the newest entry."""
        return self.entries[-1].hash


def read_book(path: Path, key: Ed25519PublicKey | None) -> Book:
    """Return a ledger once its chain (with ``key`` every signature) holds; writes nothing.

    Raises ``MissingInput`` or ``LedgerTampered``.
    """
    from ..privacy.accountant import enforced_bound, epsilon_of
    from ..privacy.ledger import open_readonly, read_rows, verify_chain
    from ..privacy.ledger_state import State

    with open_readonly(path) as connection:
        state = State(verify_chain(read_rows(connection), key))
    spends, delta = state.spends(), state.budget.delta
    together = [row for spend in spends.values() for row in spend]
    return Book(
        path=path,
        asset=state.entries[0].asset,
        budget=state.budget,
        cap=state.spent_under.epsilon,
        entries=state.entries,
        epsilon=enforced_bound(spends, delta).epsilon,
        epsilon_fixed=epsilon_of(together, delta),
        plans=len(spends),
        signed=key is not None,
    )


def as_values(book: Book) -> dict[str, Any]:
    """Return a book as plain values, for one JSON object."""
    entries: list[dict[str, Any]] = []
    for entry in book.entries:
        values = asdict(entry)
        values["signature"] = entry.signature.hex()
        entries.append(values)
    return {
        "path": str(book.path),
        "asset": book.asset,
        "budget": asdict(book.budget),
        "epsilon": book.epsilon,
        "epsilon_fixed": book.epsilon_fixed,
        "plans": book.plans,
        "head": book.head,
        "chain": "verified",
        "signatures": "verified" if book.signed else "not checked: the site's key is not here",
        "entries": entries,
    }


def show_book(console: Console, book: Book, *, last: int | None) -> None:
    """Print a book's budget, head and its ``last`` entries (None: all)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..server.words import clean, epsilon

    budget = book.budget
    checked = "chain and signatures hold" if book.signed else "chain holds, signatures not checked"
    console.print(Text(clean(book.asset), style="bold"), Text(checked, style="green"))
    console.print(
        Text(
            f"epsilon {epsilon(book.epsilon, 3)} of {budget.epsilon:g} at delta {budget.delta:g}, "
            f"unit {budget.unit}, {budget.relation}"
        )
    )
    if book.plans > 1:
        fixed = epsilon(book.epsilon_fixed, 3)
        console.print(
            Text(f"{book.plans} plans, each chosen knowing the last; {fixed} had all been fixed"),
            style="dim",
        )
    console.print(Text(f"head {book.head}", style="dim"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("seq", "round", "attempt", "steps", "noise"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("kind", "at (UTC)", "hash"):
        table.add_column(name, no_wrap=True)
    shown = book.entries if last is None else book.entries[-last:]
    for entry in shown:
        at = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            str(entry.seq),
            str(entry.round or ""),
            str(entry.attempt or ""),
            str(entry.steps or ""),
            f"{entry.spec.noise_multiplier:.4f}" if entry.spec else "",
            entry.kind,
            at,
            entry.hash.removeprefix("sha256:")[:12],
        )
    console.print(table)
    if hidden := len(book.entries) - len(shown):
        console.print(Text(f"{hidden} earlier entries, all verified; --all shows them", "dim"))
    console.print()
