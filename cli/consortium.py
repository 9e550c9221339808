"""``collegium consortium``: a member makes the key that signs plans and rosters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .verbs import example

if TYPE_CHECKING:
    from ..core.enroll import Enrolled

_EXAMPLE = 'consortium enroll --name alice --institution "North Hospital" --out keys'


@click.group(epilog=example(_EXAMPLE))
def group() -> None:
    """Make a member's key and a request to stand on the roster."""


@group.command(epilog=example(_EXAMPLE))
@click.option("--name", required=True, help="Your short name: a-z, 0-9 and hyphens.")
@click.option("--institution", required=True, help="The institution that you sign for.")
@click.option(
    "--out",
    required=True,
    metavar="KEYS",
    type=click.Path(path_type=Path),
    help="Folder of the key and the request.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def enroll(name: str, institution: str, out: Path, as_json: bool) -> None:
    """Make your signing key in KEYS, and NAME.request.json to send to the coordinator.

    The private key never leaves KEYS. A key that is there is kept.
    """
    from ..core.enroll import enroll_member

    tell(enroll_member(name, institution, out), "sites", as_json=as_json)


def tell(made: Enrolled, listeners: str, *, as_json: bool) -> None:
    """Print what enrolment made, and what to do with it."""
    if as_json:
        found = {
            "request": str(made.request),
            "private": [str(path) for path in made.private],
            "fingerprint": made.fingerprint,
        }
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for path in made.private:
        click.echo(f"{path}  private: keep it here, readable by you alone")
    click.echo(f"{made.request}  public: send it to the coordinator")
    click.echo(f"\nYour fingerprint  {made.fingerprint}")
    click.echo(f"Tell it to the {listeners} yourself, by telephone or in person; the copy in")
    click.echo("the request passes through the coordinator's hands.")
