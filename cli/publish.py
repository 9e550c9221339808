"""``collegium publish``: the global model of a run as a small, signed bundle."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import Interrupted
from .verbs import example

if TYPE_CHECKING:
    from ..simulations.publishing import Wish

_FILE = click.Path(path_type=Path)


@click.command(
    epilog=example(
        "publish run --out bundle",
        "publish run --out v2 --key lab.pem --key hospital.pem --since v1 --to public-folder",
    )
)
@click.argument("run", metavar="RUN", type=_FILE)
@click.option("--out", required=True, metavar="BUNDLE", type=_FILE, help="Folder of the bundle.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="PEM",
    type=_FILE,
    help="Private Ed25519 key that signs, once for each; default the run's own.",
)
@click.option(
    "--since",
    metavar="RUN|BUNDLE",
    type=_FILE,
    help="What is in the field: a worse model is refused, the version is one higher.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Loss of accuracy or AUC against --since that is still no worse model.",
)
@click.option(
    "--transfer",
    metavar="NPZ",
    type=_FILE,
    help='Public records on which the student learns, for [edge] transfer = "public".',
)
@click.option(
    "--test",
    metavar="NPZ",
    type=_FILE,
    help="Labelled public records for the parity gate; default the run's own.",
)
@click.option("--version", type=click.IntRange(1), help="Version; default the next one.")
@click.option(
    "--date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Day from which the bundle is valid, tomorrow at the latest; default today. The same "
    "day gives the same bytes.",
)
@click.option(
    "--to",
    metavar="FOLDER",
    type=_FILE,
    help="Publication that it is added to, made where there is none: copies the bundle there, "
    "signs the index anew with the same keys, writes device.py and a page. Web servers can serve "
    "FOLDER as it is; devices then `edge pull`. Whether it may is asked before any work.",
)
@click.option(
    "--book",
    metavar="FILE",
    type=_FILE,
    help="For --to: what was signed before, kept out of FOLDER; default beside the first key.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(run: Path, date: datetime | None, as_json: bool, **typed: Any) -> None:
    """Distil, export, quantize, gate and sign the global model of RUN.

    Everything that touches the model from here on is public or synthetic: private records are
    refused. With --to it is offered to devices at once.
    """
    from ..server.result import require_gate
    from ..simulations.publishing import Wish, publish
    from .stage_lines import stage_lines

    wish = Wish(created=date.replace(tzinfo=UTC) if date else None, **typed)
    try:
        with stage_lines(quiet=as_json) as progress:
            found = publish(run, wish, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(
            "publishing was interrupted", why="nothing was written", cure="type it again"
        ) from None
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    require_gate({"edge": found})
    if not as_json:
        _show(found, run, wish)


def _show(found: dict[str, Any], run: Path, wish: Wish) -> None:
    from ..server.words import size

    shape = f"{found['recipe']}, {size(found['size_bytes'])}"
    agreement = f"agrees with the global model in {found['agreement']:.1%}"
    click.echo(f"{wish.out}: version {found['version']}, {shape}, {agreement}")
    if found["data_free"]:
        click.echo("Data-free: the student learned from made-up records alone.")
    if found.get("published"):
        click.echo(f"published: {found['published']}")
    public = "PUBLIC.pem" if wish.keys else shlex.quote(str(run / "keys" / "bundle.pub"))
    allow = " --allow-simulated" if found["simulated"] else ""
    click.echo(f"Next: collegium edge verify {shlex.quote(str(wish.out))} --key {public}{allow}")
