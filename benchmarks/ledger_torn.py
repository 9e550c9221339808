"""A write-ahead log torn at every 512-byte offset: a prefix of the entries, or a clear refusal."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_books import grow, open_ledger, rows_of

from collegium.core.errors import CollegiumError, LedgerRolledBack, LedgerTampered
from collegium.core.signing import generate_key

SECTOR = 512


@dataclass(slots=True)
class Seen:
    """How the torn copies were answered; ``wrong`` must stay empty."""

    copies: int = 0
    whole: int = 0
    prefix: int = 0
    refused: int = 0
    rolled_back: int = 0
    wrong: list[str] = field(default_factory=list[str])


def run(rounds: int, every: int = 1) -> Seen:
    """Tear the log of a ledger of so many rounds at every ``every``-th sector, in three ways."""
    seen = Seen()
    folder = Path(tempfile.mkdtemp(prefix="torn"))
    try:
        key = generate_key()
        ledger = open_ledger(folder / "live", key)
        grow(ledger, range(1, rounds + 1))
        heads = [entry.hash for entry in ledger.entries()]
        log = (folder / "live" / "l.sqlite-wal").read_bytes()  # all acknowledged, nothing closed
        store = (folder / "live" / "l.sqlite").read_bytes()
        anchor = (folder / "live" / "anchor" / "l.anchor").read_bytes()
        ledger.close()
        for offset in range(0, len(log), SECTOR * every):
            end = offset + SECTOR
            flipped = bytes(byte ^ 0x5A for byte in log[offset:end])
            for torn in (log[:offset], log[:offset] + bytes(len(log[offset:end])) + log[end:],
                         log[:offset] + flipped + log[end:]):  # fmt: skip
                for anchored in (False, True):
                    copy = folder / "copy"
                    (copy / "anchor").mkdir(parents=True)
                    (copy / "l.sqlite").write_bytes(store)
                    (copy / "l.sqlite-wal").write_bytes(torn)
                    (copy / "anchor" / "l.anchor").write_bytes(anchor)
                    _answer(copy, key, heads, seen, anchored=anchored)
                    shutil.rmtree(copy)
    finally:
        shutil.rmtree(folder)
    return seen


def _answer(
    copy: Path, key: Ed25519PrivateKey, heads: list[str], seen: Seen, *, anchored: bool
) -> None:
    seen.copies += 1
    try:
        ledger = open_ledger(copy, key, anchored=anchored)
    except LedgerRolledBack:
        seen.rolled_back += 1
        if not anchored or [row[3] for row in rows_of(copy / "l.sqlite")] == heads:
            seen.wrong.append("rolled back without a loss")
        return
    except CollegiumError as error:
        seen.refused += 1
        if not isinstance(error, LedgerTampered):
            seen.wrong.append(f"{type(error).__name__}: {error}")
        return
    except Exception as error:  # anything else is a crash
        seen.wrong.append(f"{type(error).__name__}: {error}")
        return
    found = [entry.hash for entry in ledger.entries()]
    ledger.close()
    seen.whole += found == heads
    seen.prefix += found != heads
    if found != heads[: len(found)] or (anchored and found != heads):
        seen.wrong.append("opened with other entries" if not anchored else "a loss unnoticed")
