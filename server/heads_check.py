"""What an auditor checks of a real run: that each site signed the ledger head it is shown with."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.agreement import Roster, counted, read_envelope
from ..core.errors import InvalidInput, LedgerTampered, MissingInput, Refused
from ..core.messages import Sealed, Update
from ..core.signing import public_from_fingerprint, verify
from .federation_heads import LEDGERS, ROSTERS
from .result import FILE, read_result


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """Where a site said its ledger stood, in the last round in which it was admitted.

    ``signer`` is the site's key; ``roster_sha256`` names the roster that gives it that key.
    """

    site: str
    job: str
    round: int
    ledger_head: str
    signer: str
    roster_sha256: str


def holds_heads(folder: Path) -> bool:
    """Return whether this is a real run that has ended: signed heads, and no ledger."""
    own = folder / LEDGERS
    return any(own.glob("*.json")) and not any(own.glob("*.sqlite"))


def checked_heads(folder: Path, roster: Path | None = None) -> list[SignedHead]:
    """Return the run's heads, each signed by its site, and the ones that result.json tells.

    ``roster`` is an auditor's own roster.dsse; the run's own ones are what its coordinator says.
    Raises ``LedgerTampered`` for a head that does not hold, ``MissingInput`` without a roster
    and ``Refused`` for one that no member has signed.
    """
    rosters = [_signed_roster(path) for path in _roster_files(folder, roster)]
    found = [_head(path, rosters) for path in sorted((folder / LEDGERS).glob("*.json"))]
    if (folder / FILE).is_file():
        _require_told(read_result(folder), found, rosters, own=roster is None)
    return found


def _roster_files(folder: Path, roster: Path | None) -> list[Path]:
    files = [roster] if roster else sorted((folder / ROSTERS).glob("*.dsse"))
    if not files or not all(path.is_file() for path in files):
        raise MissingInput(
            f"there is no roster at {roster}" if roster else f"{folder} holds no roster",
            why="the sites' keys stand in the roster that the members signed",
            cure="pass --roster with the roster.dsse of any kit of this federation",
        )
    return files


def _signed_roster(path: Path) -> Roster:
    envelope = read_envelope(path.read_bytes())
    roster = Roster.from_bytes(envelope.payload)
    if not counted(envelope, roster, [member.public_key for member in roster.members]):
        raise Refused(
            f"no member has signed {path.name}",
            why="a roster holds because the members of other institutions signed it",
            cure="pass --roster with the roster.dsse of a kit",
        )
    return roster


def _head(path: Path, rosters: Sequence[Roster]) -> SignedHead:
    """Return one file's head; nothing of it is believed before a roster's key has signed it."""
    site = path.stem
    try:
        entry: Any = json.loads(path.read_bytes())
        sealed = Sealed(
            header=base64.b64decode(entry["signed"]["header"], validate=True),
            signature=bytes.fromhex(entry["signed"]["signature"]),
            payload=b"",
        )
        claimed = (entry["site"], entry["round"], entry["ledger_head"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _wrong(site, "its file is not a signed head") from None
    signed_under = _signer(site, sealed, rosters)
    if signed_under is None:
        raise _wrong(site, "no roster's key of this site signed it")
    signer, roster = signed_under
    header: Any = json.loads(sealed.header)
    if claimed != (header["site"], header["round"], header["ledger_head"]) or claimed[0] != site:
        raise _wrong(site, "the site signed something else")
    return SignedHead(
        site=site,
        job=header["job"],
        round=header["round"],
        ledger_head=header["ledger_head"],
        signer=signer,
        roster_sha256=roster.digest,
    )


def _signer(site: str, sealed: Sealed, rosters: Sequence[Roster]) -> tuple[str, Roster] | None:
    for roster in rosters:
        for entry in roster.sites:
            key = public_from_fingerprint(entry.public_key)
            if entry.name == site and verify(key, sealed.signature, Update.signed_bytes(sealed)):
                return entry.public_key, roster
    return None


def _require_told(
    values: Mapping[str, Any], found: Sequence[SignedHead], rosters: Sequence[Roster], *, own: bool
) -> None:
    """Raise unless result.json is of the same job, plan and roster and tells the same heads."""
    if any(roster.plan_sha256 != values.get("plan_sha256") for roster in rosters):
        raise InvalidInput(
            "the roster is for another plan than this run's",
            cure="pass --roster with the roster.dsse of a kit of this plan",
        )
    if own and values.get("roster_sha256") not in {roster.digest for roster in rosters}:
        raise MissingInput(
            "the roster that result.json names is not in the run",
            cure="pass --roster with the roster.dsse of a kit",
        )
    last = {site: entry["round"] for entry in values["history"] for site in entry["sites"]}
    told = (values["privacy"] or {}).get("epsilon_by_site", {})
    heads = {head.site: head for head in found}
    for site in sorted(set(last) | set(heads)):
        head = heads.get(site)
        if head is None:
            raise _wrong(site, f"it took part in round {last[site]}, and its file is missing")
        if head.job != values.get("job"):
            raise _wrong(site, "it is of another run")
        if head.round != last.get(site):
            raise _wrong(site, f"it is of round {head.round}, the last one is {last.get(site)}")
        if site in told and told[site]["ledger_head"] != head.ledger_head:
            raise _wrong(site, "result.json tells another one")


def _wrong(site: str, why: str) -> LedgerTampered:
    return LedgerTampered(
        f"the ledger head of '{site}' does not hold",
        why=why,
        cure="fetch the run's folder again from the coordinator; ask the site for its own head",
    )
