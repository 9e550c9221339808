"""A ledger's files: opened for given records, anchored, backed up, restored, exported."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..core.digest import PREFIX, canonical_bytes
from ..core.errors import InvalidInput, LedgerRolledBack, LedgerTampered, OutputExists, Refused
from ..core.files import write_atomic
from ..core.mechanism import Budget
from ..core.signing import make_envelope
from .fingerprint import Export, Register, another_ledger
from .ledger import Ledger
from .ledger_anchor import Anchor
from .ledger_rows import LedgerEntry, Row, signers, verify_chain
from .ledger_state import State
from .ledger_store import open_readonly, read_rows

EXPORT = "collegium/ledger-export/2"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:collegium:ledger-head:v1"
_SAME = "the same records, by what their file holds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What came back from a backup: its newest entry, and whether the anchor has seen more."""

    seq: int
    head: str
    behind_anchor: bool


def open_for_records(
    path: Path,
    asset: str,
    budget: Budget,
    key: Ed25519PrivateKey,
    *,
    register: Register,
    export: Export,
    anchor: Path | None = None,
    attach: bool = False,
    note: str = "",
) -> Ledger:
    """Open an asset's ledger for these records: all of them, training and test part together.

    An export is known by what was found in it or by what a plan made of it; then its other name
    is added by a signed entry. With ``attach`` (and a ``note``: what it is, who checked it)
    an export that the ledger does not know is attached to the asset in the same way. Raises
    as ``Ledger`` does, and ``Refused`` when a record belongs to another asset of the site or the
    register knows another ledger of this asset: an asset has one ledger, wherever it lies.
    """
    if attach and not note:
        raise InvalidInput("an attached export needs a note", cure="say what it is and who checked")
    for digests in export.kinds:
        register.check(asset, digests)  # claimed only once the ledger has let them in
    if register.ledger_of(asset) is not None and not path.is_file():
        raise another_ledger(asset)
    name, there = export.name, path.is_file()
    known = any(register.knows(asset, other) for other in name.also)
    if there and (attach or known):
        ledger = Ledger(path, asset, budget, key, anchor=anchor)
    else:
        ledger = Ledger(path, asset, budget, key, anchor=anchor, records=name)
    try:
        register.bind(asset, ledger.entries()[0].hash)
        if there:  # a known export is kept
            ledger.attach(name, note=note if attach else _SAME)
        for digests in export.kinds:
            register.claim(asset, digests)
    except BaseException:
        ledger.close()
        raise
    return ledger


def adopt_anchor(path: Path, key: Ed25519PublicKey, anchor: Path) -> str:
    """Make the first anchor of a ledger that has none; return the head that it remembers.

    Raises ``LedgerTampered`` when the ledger does not verify, and ``LedgerRolledBack`` or
    ``Refused`` when an anchor is there: none is ever overwritten.
    """
    entries = _verified(path, key)
    file = Anchor(anchor)
    if (mark := file.read()) is not None:
        file.check(mark, entries)
        raise Refused(f"{anchor.name} is already this ledger's anchor", cure="open the ledger")
    file.write(entries[-1])
    return entries[-1].hash


def backup(path: Path, to: Path) -> str:
    """Copy a ledger, also one in use, into one file (``VACUUM INTO``); return the copy's head.

    Raises ``OutputExists``, and ``LedgerTampered`` when the copy's chain does not hold.
    """
    return _copy(path, to)[-1].hash


def restore(copy: Path, to: Path, *, anchor: Path | None = None) -> Restored:
    """Bring a backup back as the ledger ``to``, verified; says what the anchor will object to.

    Raises ``OutputExists`` where a ledger or an old log lies: SQLite would mix that log into
    the restored file. A copy that is behind the anchor is restored but will not open.
    """
    for ending in ("-wal", "-shm", "-journal"):
        beside = to.with_name(to.name + ending)
        if beside.exists():
            raise OutputExists(
                f"an old {beside.name} lies beside",
                why="it belongs to the ledger that was here and would be mixed into this one",
                cure="move the old ledger away together with its -wal and -shm",
            )
    entries = _copy(copy, to)
    behind = False
    if anchor is not None and (mark := Anchor(anchor).read()) is not None:
        try:
            Anchor(anchor).check(mark, entries)
        except LedgerRolledBack:
            behind = True
    return Restored(seq=entries[-1].seq, head=entries[-1].hash, behind_anchor=behind)


def export_jsonl(path: Path) -> bytes:
    """Return a ledger as lines of JSON: a header, then the raw rows; `ledger verify` reads it."""
    with open_readonly(path) as connection:
        rows = read_rows(connection)
    entries = _told(rows, None)
    header = {
        "format": EXPORT,
        "asset": entries[0].asset,
        "public_key": signers(entries)[-1],
    }
    lines = [canonical_bytes(header)]
    for seq, prev, body, digest, signature in rows:
        row = {"seq": seq, "prev": prev, "body": body, "hash": digest}
        lines.append(canonical_bytes(row | {"signature": signature.hex()}))
    return b"\n".join(lines) + b"\n"


def export_csv(entries: Sequence[LedgerEntry]) -> bytes:
    """Return entries as a table for people; it cannot be verified."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_cells(entry) for entry in entries)
    return table.getvalue().encode()


def export_html(entries: Sequence[LedgerEntry]) -> bytes:
    """Return entries as one page for people; it cannot be verified."""
    state = State(entries)
    budget = state.budget
    head = html.escape(state.head)
    title = html.escape(f"Privacy ledger of {entries[0].asset}")
    names = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in _cells(entry)) + "</tr>"
        for entry in entries
    )
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.2em .6em;text-align:left;border-bottom:1px solid #ccc}</style>\n"
        f"<h1>{title}</h1>\n<p>Budget: epsilon {budget.epsilon:g} at delta {budget.delta:g}, unit"
        f" {html.escape(budget.unit)}, {html.escape(budget.relation)}.<br>Head: <code>{head}</code>"
        "</p>\n<p>This page is for reading; only the ledger or its jsonl export can be verified."
        f"</p>\n<table><tr>{names}</tr>\n{rows}\n</table></html>\n"
    )
    return page.encode()


def export_dsse(entries: Sequence[LedgerEntry], key: Ed25519PrivateKey) -> bytes:
    """Return the newest entry's hash as an in-toto statement in a DSSE envelope signed by ``key``.

    https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
    """
    state = State(entries)
    last = entries[-1]
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": last.asset, "digest": {"sha256": last.hash.removeprefix(PREFIX)}}],
        "predicateType": PREDICATE,
        "predicate": {"seq": last.seq, "at": last.at, "budget": asdict(state.budget)},
    }
    return make_envelope(canonical_bytes(statement), [key])


_COLUMNS = ("seq", "at (UTC)", "kind", "job", "round", "attempt", "steps", "noise multiplier",
            "sampling rate", "epsilon claimed", "method", "note", "hash")  # fmt: skip


def _cells(entry: LedgerEntry) -> tuple[object, ...]:
    spec, claim = entry.spec, entry.claim
    return (
        entry.seq,
        datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        entry.kind,
        _plain(entry.job),
        entry.round or "",
        entry.attempt or "",
        entry.steps or "",
        spec.noise_multiplier if spec else "",
        spec.sampling_rate if spec else "",
        f"{claim.epsilon:.6f}" if claim else "",
        _plain(claim.method) if claim else "",
        _plain(entry.note),
        entry.hash,
    )


def _plain(text: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _copy(path: Path, to: Path) -> list[LedgerEntry]:
    """Copy a ledger through SQLite into a new file; return its verified entries."""
    if to.exists():
        raise OutputExists(
            f"{to.name} exists", why="a ledger is never overwritten", cure="choose another name"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(to.name + ".partial")
    partial.unlink(missing_ok=True)
    with open_readonly(path) as source:
        source.execute("VACUUM INTO ?", (str(partial),))
    try:
        entries = _verified(partial, None)
        write_atomic(to, partial.read_bytes(), mode=0o600)
    finally:
        partial.unlink(missing_ok=True)
    return entries


def _verified(path: Path, key: Ed25519PublicKey | None) -> list[LedgerEntry]:
    with open_readonly(path) as connection:
        return _told(read_rows(connection), key)


def _told(rows: list[Row], key: Ed25519PublicKey | None) -> list[LedgerEntry]:
    """Return verified entries, one at least."""
    entries = verify_chain(rows, key)
    if not entries:
        raise LedgerTampered("the ledger holds no entry", cure="restore it from its backup")
    return list(State(entries).entries)
