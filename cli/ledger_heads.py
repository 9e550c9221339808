"""``ledger verify RUN`` and ``show RUN`` of a real run: the heads that its sites signed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

_STAYS = "The ledgers stay at the sites. Each checks its own against this run:"


def is_real_run(path: Path) -> bool:
    """Return whether ``path`` is the folder of a real run, which holds heads and no ledger."""
    from ..server.heads_check import holds_heads

    return path.is_dir() and holds_heads(path)


def tell_heads(run: Path, *, roster: Path | None, as_json: bool) -> None:
    """Print the heads of a real run once all signatures hold; raises as ``checked_heads``."""
    from ..server.heads_check import checked_heads
    from ..server.words import clean

    found = checked_heads(run, roster)
    if as_json:
        click.echo(json.dumps({"heads": [asdict(head) for head in found]}))
        return
    for head in found:
        line = f"{head.site}: ok, signed in round {head.round}, head {head.ledger_head}"
        click.echo(clean(line))
    for digest in dict.fromkeys(head.roster_sha256 for head in found):
        whose = "your roster" if roster else "the roster in the run; compare it with a kit's"
        click.echo(f"keys from {whose}: {digest}")
    result = clean(str(run / "result.json"))
    click.echo(f"{_STAYS} collegium ledger verify LEDGER --key KEY --site SITE --heads {result}")
