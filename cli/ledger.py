"""``collegium ledger``: what an asset has spent, verified, recomputed, exported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import (
    AccountingMismatch,
    CollegiumError,
    InvalidInput,
    LedgerRolledBack,
    LedgerTampered,
    MissingInput,
    OutputExists,
    OverBudget,
    UsageError,
)
from .ledger_book import Book, as_values, read_book, show_book
from .ledger_heads import is_real_run, tell_heads
from .verbs import example

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_LAST = 8
_PATH = click.Path(path_type=Path)


@click.group(epilog=example("ledger show run", "ledger verify run"))
def group() -> None:
    """Show and verify what each data asset has spent."""


@group.command(epilog=example("ledger show run", "ledger show run/ledgers/north.sqlite --all"))
@click.argument("path", metavar="PATH|RUN", type=_PATH)
@click.option("--all", "everything", is_flag=True, help="Show every entry, not the newest alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(path: Path, everything: bool, as_json: bool) -> None:
    """Verify the chain of a ledger, or of all ledgers of RUN, and show what they hold.

    Answers 2 when an entry was changed, 3 when a ledger is older than the run that it belongs to,
    4 when it is over its budget.
    """
    if is_real_run(path):
        tell_heads(path, roster=None, as_json=as_json)
        return
    books = [read_book(file, key) for file, key in _ledgers(path)]
    _not_rolled_back(path, books)
    if as_json:
        click.echo(json.dumps({"ledgers": [as_values(book) for book in books]}))
    else:
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        for book in books:
            show_book(console, book, last=None if everything else _LAST)
    for book in books:
        if book.epsilon > book.cap:
            raise OverBudget(
                f"asset '{book.asset}' is over its budget",
                why=f"epsilon {book.epsilon:.4f} of {book.cap:g} is spent",
                cure="nothing more can be computed from this asset under this budget",
            )


@group.command(
    epilog=example(
        "ledger verify run",
        "ledger verify north.jsonl --key north.pub --anchor north.anchor --heads heads.json",
    )
)
@click.argument("path", metavar="PATH|RUN|EXPORT", type=_PATH)
@click.option(
    "--key", "--pub", "key", metavar="PEM|ed25519:...", help="The site's key, from the site itself."
)
@click.option("--anchor", type=_PATH, metavar="FILE", help="The ledger's anchor.")
@click.option(
    "--heads",
    type=_PATH,
    metavar="FILE",
    help="Heads that others have seen: JSON, a list, {SITE: head} or a run's result.json.",
)
@click.option("--site", help="Which site of --heads this is; default the file's name.")
@click.option(
    "--roster",
    type=_PATH,
    metavar="FILE",
    help="Of a real run: the roster.dsse that you trust; default the run's own.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(
    path: Path,
    *,
    key: str | None,
    anchor: Path | None,
    heads: Path | None,
    site: str | None,
    roster: Path | None,
    as_json: bool,
) -> None:
    """Check every hash, signature, head and epsilon of a ledger, an export or all ledgers of RUN.

    The same code as the single file privacy/ledger_verify.py, which an auditor runs without this
    package. Answers 0 ok, 2 tampered, 3 rolled back or forked, 4 over budget, 5 an epsilon is
    larger than claimed. A real run's ledgers stay at its sites: of its RUN the heads that they
    signed are checked, with the keys of the roster and against result.json.
    """
    if is_real_run(path):
        if key or anchor or heads or site:
            raise UsageError("a real run holds no ledger", cure="--roster alone goes with its RUN")
        tell_heads(path, roster=roster, as_json=as_json)
        return
    if roster is not None:
        raise UsageError(
            f"{path} is not a real run", cure="--roster goes with the folder of one, --key here"
        )
    found = _ledgers(path)
    if len(found) > 1 and (anchor or site):
        raise UsageError("--anchor and --site belong to one ledger", cure="name its file")
    heads = heads or _heads_of_run(path)
    told = [
        _verified(
            file,
            _key(key) if key else own,
            anchor=anchor,
            heads=heads,
            site=site or file.stem,
        )
        for file, own in found
    ]
    if as_json:
        click.echo(json.dumps({"ledgers": told}))
        return
    from ..server.words import clean, epsilon

    for book in told:
        click.echo(
            f"{clean(book['path'])}: ok, {book['entries']} entries of '{clean(book['asset'])}',"
            f" epsilon {epsilon(book['epsilon'], 3)} of {book['budget']:g},"
            f" head {book['head'][:19]}"
        )


@group.command(
    epilog=example(
        "ledger export run/ledgers/north.sqlite --out north.jsonl",
        "ledger export north.sqlite --out north.head.json --format dsse --key north.pem",
    )
)
@click.argument("path", metavar="PATH", type=_PATH)
@click.option("--out", required=True, type=_PATH, metavar="FILE", help="The new file.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "html", "dsse"]),
    default="jsonl",
    help="jsonl can be verified; csv and html are for reading; dsse is the signed head.",
)
@click.option("--key", type=_PATH, metavar="PEM", help="Private key that signs (dsse alone).")
def export(path: Path, out: Path, form: str, key: Path | None) -> None:
    """Write a ledger, once its chain holds, as one file."""
    from ..core.files import write_atomic
    from ..core.signing import load_private
    from ..privacy import ledger_files

    if out.exists():
        raise OutputExists(f"{out} exists", cure="choose another --out")
    ((file, own), *others) = _ledgers(path)
    if others:
        raise UsageError(f"{path} holds several ledgers", cure="name one of them")
    book = read_book(file, own)
    if form == "dsse":
        pem = key or (_private(file.parent.parent, file.stem) if own is not None else None)
        if pem is None:
            raise UsageError("a dsse export needs the key that signs it", cure="pass --key PEM")
        data = ledger_files.export_dsse(book.entries, load_private(pem))
    elif form == "jsonl":
        data = ledger_files.export_jsonl(file)
    elif form == "csv":
        data = ledger_files.export_csv(book.entries)
    else:
        data = ledger_files.export_html(book.entries)
    write_atomic(out, data)
    click.echo(f"{out}: {len(book.entries)} entries, head {book.head[:19]}")


def _ledgers(path: Path) -> list[tuple[Path, Ed25519PublicKey | None]]:
    """Return each ledger file with the key that must have signed it, where the run holds it."""
    if not path.is_dir():
        inside = path.parent.name == "ledgers"
        return [(path, _site_key(path.parent.parent, path.stem) if inside else None)]
    files = sorted((path / "ledgers").glob("*.sqlite"))
    if not files:
        raise MissingInput(
            f"there is no ledger in {path}",
            why="a real run's ledgers stay at its sites"
            if is_real_run(path)
            else "it has no ledgers/SITE.sqlite",
            cure="name a ledger file or the folder of one run",
        )
    return [(file, _site_key(path, file.stem)) for file in files]


def _site_key(run: Path, site: str) -> Ed25519PublicKey | None:
    """Return a simulated site's public key; a real site's key is not in a run's folder."""
    from ..core.signing import load_private

    path = _private(run, site)
    return load_private(path).public_key() if path.is_file() else None


def _private(run: Path, site: str) -> Path:
    return run / "keys" / "private" / f"{site}.pem"


def _key(text: str) -> Ed25519PublicKey:
    """Return the key of a fingerprint or PEM file; of a private one its public half."""
    from ..core.signing import load_private, load_public, public_from_fingerprint

    if text.startswith("ed25519:"):
        return public_from_fingerprint(text)
    try:
        return load_public(Path(text))
    except InvalidInput:
        return load_private(Path(text)).public_key()


def _heads_of_run(path: Path) -> Path | None:
    """Return the result of the run that a ledger belongs to: it knows the head of each site."""
    from ..server.result import FILE

    file = (path if path.is_dir() else path.parent.parent) / FILE
    inside = path.is_dir() or path.parent.name == "ledgers"
    return file if inside and file.is_file() else None


def _verified(
    path: Path, key: Ed25519PublicKey | None, *, anchor: Path | None, heads: Path | None, site: str
) -> dict[str, Any]:
    """Return what the auditor's script finds; its exit codes become the errors of this list."""
    from ..privacy import ledger_verify as auditor

    if not path.is_file():
        raise MissingInput(f"no ledger at {path}", cure="name a ledger file or a run directory")
    if key is None:
        raise UsageError(
            f"nobody said whose key must have signed {path.name}",
            why="without it a ledger that somebody else wrote would pass",
            cure="pass --key with the site's public key or fingerprint",
        )
    kinds: dict[int, type[CollegiumError]] = {
        auditor.TAMPERED: LedgerTampered,
        auditor.ROLLED_BACK: LedgerRolledBack,
        auditor.OVER_BUDGET: OverBudget,
        auditor.MISMATCH: AccountingMismatch,
    }
    try:
        known = _known_heads(heads, site) if heads else []
        found = auditor.verify(path, key, anchor=anchor, heads=known)
    except auditor.LedgerError as error:
        code, reason = error.args
        raise kinds[code](reason) from None
    except OSError as error:
        raise MissingInput(f"{error.filename} cannot be read", why=error.strerror or "") from None
    return {"path": str(path), **found}


def _known_heads(path: Path, site: str) -> list[str]:
    from ..privacy import ledger_verify as auditor

    try:
        return auditor.read_heads(path, site)
    except auditor.BROKEN:
        raise UsageError(
            f"{path.name} knows no head of '{site}'",
            cure='it must hold a list of heads, {"SITE": head}, or a run\'s result; see --site',
        ) from None


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
