"""``collegium site preflight``: a table of check, problem and cure before anything connects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import GateFailed
from .site_lines import PATH, load_site
from .verbs import example

if TYPE_CHECKING:
    from ..client.preflight import Finding, Part

_SIGNS = {"ok": "ok", "warning": "note", "problem": "PROBLEM", "unknown": "not checked"}
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "yellow"}


@click.command(
    "preflight",
    epilog=example(
        "site preflight site.toml",
        "site preflight site.toml --part network",
        "site preflight site.toml --json",
    ),
)
@PATH
@click.option(
    "--part",
    type=click.Choice(["both", "network", "records"]),
    default="both",
    show_default=True,
    help="Which part of the site this user runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path, part: Part, as_json: bool) -> None:
    """Check kit, keys, certificate, clock, disk, policy, records, ledger and time of SITE.toml.

    Nothing leaves this machine but one TLS handshake, and nothing is spent. Answers 0 when all
    is well (also where a check could not be made from here) and 1 for any problem.
    """
    from ..client.preflight import preflight

    file = load_site(path)
    found: list[Finding] = []
    for finding in preflight(file, part=part):
        found.append(finding)
    if as_json:
        values = {"ok": not _problems(found), "checks": [asdict(finding) for finding in found]}
        click.echo(json.dumps(values, ensure_ascii=False))
    else:
        _show(found)
    if count := len(_problems(found)):
        raise GateFailed(
            f"{count} check{'s' if count != 1 else ''} did not pass",
            cure="mend what the table names, then check again",
        )


def _problems(found: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.state == "problem"]


def _show(found: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..server.words import clean

    table = Table("check", "", "what was found", "cure", box=None, pad_edge=False, padding=(0, 2))
    for finding in found:
        cure = "" if finding.state == "ok" else finding.cure
        table.add_row(
            Text(clean(finding.check)),
            Text(_SIGNS[finding.state], style=_STYLES[finding.state]),
            Text(clean(finding.text)),
            Text(clean(cure)),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400  # a pipe has no width: a row that people grep stays on one line
    console.print(table)
