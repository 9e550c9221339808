"""The anchor: a small file on another path that remembers how far a ledger had got."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.digest import canonical_bytes
from ..core.errors import InvalidInput, LedgerRolledBack, LedgerTampered, Refused
from ..core.files import write_atomic
from ..core.signing import public_from_fingerprint, verify
from .ledger_rows import LedgerEntry, signer_of, signers

FORMAT = "collegium/ledger-anchor/1"
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A ledger's newest entry as its anchor remembers it; the signature is that entry's own."""

    asset: str
    seq: int
    hash: str
    signature: bytes


class Anchor:
    """The anchor file of one ledger, written by the ledger's one writer alone."""

    def __init__(self, path: Path) -> None:
        """Nothing is read or written yet."""
        self.path = path
        self._written = path.is_file()

    def read(self) -> Mark | None:
        """Return what the anchor remembers, None when there is no file.

        Raises ``LedgerTampered`` when the file is no anchor.
        """
        if not self.path.is_file():
            return None
        with self.path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        try:
            values: Any = json.loads(raw)
            if set(values) != {"format", "asset", "seq", "hash", "signature"}:
                raise ValueError
            if values["format"] != FORMAT or type(values["seq"]) is not int or values["seq"] < 0:
                raise ValueError
            signature = bytes.fromhex(values["signature"])
            asset, digest = str(values["asset"]), str(values["hash"])
        except (ValueError, TypeError, RecursionError):
            raise LedgerTampered(
                f"{self.path.name} is no ledger anchor",
                why="it was overwritten or damaged",
                cure="restore it, or verify the ledger against the heads that its peers have seen",
            ) from None
        return Mark(asset=asset, seq=values["seq"], hash=digest, signature=signature)

    def check(self, mark: Mark, entries: Sequence[LedgerEntry]) -> None:
        """Raise unless the anchor's head is an entry of the (verified) ledger.

        ``LedgerRolledBack`` when the ledger lacks it, ``LedgerTampered`` when it is not signed
        by the key that the ledger had in force.
        """
        known = mark.seq < len(entries)
        keys = [signer_of(entries, mark.seq)] if known else signers(entries)
        if entries and not any(_signed(mark, key) for key in keys):
            raise LedgerTampered(
                f"the anchor {self.path.name} is not signed by this ledger's key",
                why="another key wrote it",
                cure="name the anchor of this ledger, or restore it",
            )
        if not known or entries[mark.seq].hash != mark.hash:
            raise LedgerRolledBack(
                f"the ledger is older than its anchor {self.path.name}, or forked from it",
                why=f"the anchor has seen entry {mark.seq}, which the ledger does not hold",
                cure="restore the newest copy of the ledger; entries are never cut off",
            )

    def refuse_missing(self) -> None:
        """Raise ``Refused``: a ledger that was anchored before has lost its anchor."""
        raise Refused(
            f"the anchor {self.path.name} is missing",
            why="without it nobody can tell whether this ledger is the newest one",
            cure="restore it or mount its volume; if it never existed, adopt_anchor() makes it",
        )

    def write(self, entry: LedgerEntry) -> None:
        """Remember ``entry`` durably; raises ``OSError``, also when the file has vanished.

        A file that is suddenly gone is an unmounted volume: writing there would anchor nothing.
        """
        if self._written and not self.path.is_file():
            raise FileNotFoundError(f"the anchor {self.path.name} has vanished")
        values = {
            "format": FORMAT,
            "asset": entry.asset,
            "seq": entry.seq,
            "hash": entry.hash,
            "signature": entry.signature.hex(),
        }
        write_atomic(self.path, canonical_bytes(values), b"\n")
        self._written = True


def _signed(mark: Mark, key: str) -> bool:
    try:
        return verify(public_from_fingerprint(key), mark.signature, mark.hash.encode())
    except InvalidInput:
        return False
