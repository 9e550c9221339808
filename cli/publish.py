"""``collegium publish``: the global model of a run as a small, signed bundle."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .verbs import example


@click.command(epilog=example("publish run --out bundle", "publish run --out bundle --key me.pem"))
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="Folder of the new bundle.",
)
@click.option(
    "--key",
    metavar="PEM",
    type=click.Path(path_type=Path),
    help="Private Ed25519 key that signs; default the run's own.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(run: Path, out: Path, key: Path | None, as_json: bool) -> None:
    """Distil, export, quantize, gate and sign the global model of RUN."""
    from ..server.result import require_gate
    from ..server.words import size
    from ..simulations.publishing import publish_simulated

    found = publish_simulated(run, out=out, key=key)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    require_gate({"edge": found})
    if not as_json:
        agreement = f"agrees with the global model in {found['agreement']:.1%}"
        click.echo(f"{out}: {found['recipe']}, {size(found['size_bytes'])}, {agreement}")
        public = "PUBLIC.pem" if key else run / "keys" / "bundle.pub"
        click.echo(f"Next: collegium edge verify {out} --key {public} --allow-simulated")
