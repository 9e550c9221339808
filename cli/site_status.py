"""``collegium site status``: where the running site stands, asked over its own socket."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from .site_lines import PATH, load_site
from .verbs import example


@click.command("status", epilog=example("site status site.toml", "site status site.toml --json"))
@PATH
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path, as_json: bool) -> None:
    """Ask the running site of SITE.toml where it stands; answers 69 when none runs."""
    from dataclasses import asdict

    from ..client.control import SOCKET, ControlClient

    client = ControlClient(load_site(path).state_path / SOCKET)
    standing = client.standing()
    client.close()
    if as_json:
        click.echo(json.dumps(asdict(standing), ensure_ascii=False))
        return
    from ..server.words import clean, duration, epsilon

    newest = f"round {standing.round}, attempt {standing.attempt}" if standing.job else "none yet"
    rows = {
        "site": f"{standing.site}, {standing.phase.lower()}",
        "up since": duration(max(0.0, time.time() - standing.started_at)),
        "plan": standing.plan_sha256,
        "newest charge": newest + (f" of job {standing.job}" if standing.job else ""),
        "epsilon spent": f"{epsilon(standing.epsilon, 3)} of {standing.max_epsilon:g}",
        "ledger head": standing.ledger_head,
        "SuperNode": f"{standing.supernode}, restarted {standing.supernode_restarts} times",
        "device": standing.device,
        "cancelled jobs": ", ".join(standing.cancelled) or "none",
        "version": standing.version,
    }
    for name, value in rows.items():
        click.echo(f"{name:<15} {clean(value)}")
    if standing.simulated:
        click.echo("\nThe noise is seeded (lab roster): no privacy guarantee.")
