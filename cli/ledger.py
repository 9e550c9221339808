"""``collegium ledger``: what an asset has spent, recomputed from its verified entries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import LedgerRolledBack, LedgerTampered, MissingInput, OverBudget
from .verbs import example, unbuilt

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from rich.console import Console

    from ..core.mechanism import Budget
    from ..privacy.ledger import LedgerEntry

_LAST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One verified ledger; ``epsilon`` is recomputed from its reserves, ``signed`` if checked."""

    path: Path
    asset: str
    budget: Budget
    entries: Sequence[LedgerEntry]
    epsilon: float
    signed: bool

    @property
    def head(self) -> str:
        """Return the hash of the newest entry."""
        return self.entries[-1].hash


@click.group(epilog=example("ledger show run", "ledger show run/ledgers/north.sqlite --json"))
def group() -> None:
    """Show what each data asset has spent."""


@group.command(epilog=example("ledger show run", "ledger show run/ledgers/north.sqlite --all"))
@click.argument("path", metavar="PATH|RUN", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Show every entry, not the newest alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(path: Path, everything: bool, as_json: bool) -> None:
    """Verify the chain of a ledger, or of all ledgers of RUN, and show what they hold.

    Answers 2 when an entry was changed, 3 when a ledger is older than the run that it belongs to,
    4 when it is over its budget.
    """
    books = [read_book(file, key) for file, key in _ledgers(path)]
    _not_rolled_back(path, books)
    if as_json:
        click.echo(json.dumps({"ledgers": [_machine(book) for book in books]}))
    else:
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        for book in books:
            _print(console, book, last=None if everything else _LAST)
    for book in books:
        if book.epsilon > book.budget.epsilon:
            raise OverBudget(
                f"asset '{book.asset}' is over its budget",
                why=f"epsilon {book.epsilon:.4f} of {book.budget.epsilon:g} is spent",
                cure="nothing more can be computed from this asset under this budget",
            )


group.add_command(unbuilt("verify", "Check a ledger against its anchor and other heads."))
group.add_command(unbuilt("export", "Write a ledger as one signed file."))


def read_book(path: Path, key: Ed25519PublicKey | None) -> Book:
    """Return a ledger once its chain (with ``key`` every signature) holds; writes nothing.

    Raises ``MissingInput`` or ``LedgerTampered``.
    """
    from ..privacy.accountant import epsilon_of
    from ..privacy.ledger import open_readonly, read_rows, verify_chain

    with open_readonly(path) as connection:
        entries = verify_chain(read_rows(connection), key)
    budget = entries[0].budget if entries else None
    if budget is None:
        raise LedgerTampered(
            f"{path} does not begin with its budget",
            why="the first entry of a ledger opens it for one asset and freezes the budget",
            cure="restore the ledger from its backup",
        )
    spend = [(entry.spec, entry.steps) for entry in entries if entry.spec is not None]
    return Book(
        path=path,
        asset=entries[0].asset,
        budget=budget,
        entries=entries,
        epsilon=epsilon_of(spend, budget.delta),
        signed=key is not None,
    )


def _ledgers(path: Path) -> list[tuple[Path, Ed25519PublicKey | None]]:
    """Return each ledger file with the key that must have signed it, where the run holds it."""
    if not path.is_dir():
        run = path.parent.parent
        return [(path, _site_key(run, path.stem))]
    files = sorted((path / "ledgers").glob("*.sqlite"))
    if not files:
        raise MissingInput(
            f"there is no ledger in {path}",
            why="it has no ledgers/SITE.sqlite",
            cure="name a ledger file or the folder of one run",
        )
    return [(file, _site_key(path, file.stem)) for file in files]


def _site_key(run: Path, site: str) -> Ed25519PublicKey | None:
    """Return a simulated site's public key; a real site's key is not in a run's folder."""
    from ..core.signing import load_private

    path = run / "keys" / "private" / f"{site}.pem"
    return load_private(path).public_key() if path.is_file() else None


def _not_rolled_back(path: Path, books: Sequence[Book]) -> None:
    """Raise ``LedgerRolledBack`` when a ledger lacks the head that its finished run has seen."""
    from ..server.result import FILE, read_result

    if not (path / FILE).is_file():
        return
    seen = (read_result(path)["privacy"] or {}).get("epsilon_by_site", {})
    for book in books:
        head = seen.get(book.path.stem, {}).get("ledger_head")
        if head is not None and head not in {entry.hash for entry in book.entries}:
            raise LedgerRolledBack(
                f"the ledger {book.path.name} is older than its run, or forked from it",
                why=f"result.json has seen the head {head[:19]}, which it does not hold",
                cure="restore the newest backup; a ledger is never cut short",
            )


def _machine(book: Book) -> dict[str, Any]:
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
        "head": book.head,
        "chain": "verified",
        "signatures": "verified" if book.signed else "not checked: the site's key is not here",
        "entries": entries,
    }


def _print(console: Console, book: Book, *, last: int | None) -> None:
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
