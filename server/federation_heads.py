"""ledgers/SITE.json: the last ledger head that each site signed, with the signed bytes.

A coordinator holds no ledger. What it can show is where a site said its ledger stood, and the
rosters with whose keys an auditor checks that the site said so.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.agreement import Roster, read_envelope
from ..core.digest import PREFIX
from ..core.files import write_atomic
from .store import Release

LEDGERS, ROSTERS = "ledgers", "rosters"


def keep_roster(folder: Path, envelope: bytes) -> None:
    """Keep the signed roster under which sites are admitted; a new one lies beside the old."""
    digest = Roster.from_bytes(read_envelope(envelope).payload).digest.removeprefix(PREFIX)
    write_atomic(folder / ROSTERS / f"{digest}.dsse", envelope)


def write_heads(folder: Path, history: Sequence[Release]) -> dict[str, str]:
    """Write one file per site that was ever admitted; return the heads by site."""
    found: dict[str, str] = {}
    last = {site: release.round for release in history for site in release.sites}
    for site, round in last.items():
        entry = _signed_head(folder, site, round)
        if entry is not None:
            text = json.dumps(entry, indent=1)
            write_atomic(folder / LEDGERS / f"{site}.json", text.encode() + b"\n")
            found[site] = entry["ledger_head"]
    return found


def _signed_head(folder: Path, site: str, round: int) -> dict[str, Any] | None:
    path = folder / "updates" / f"round-{round:06d}" / f"{site}.header"
    try:
        header, _, signature = path.read_bytes().rpartition(b"\n")
        values = json.loads(header)
        return {
            "site": site,
            "round": round,
            "ledger_head": str(values["ledger_head"]),
            "signed": {
                "kind": "application/vnd.collegium.update+json",
                "header": base64.b64encode(header).decode(),
                "signature": signature.decode(),
            },
        }
    except (OSError, ValueError, KeyError, UnicodeDecodeError):
        return None  # not kept any more; result.json then says that no head is known
