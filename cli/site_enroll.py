"""``collegium site enroll``: a site makes its two keys where they are used."""

from __future__ import annotations

from pathlib import Path

import click

from .consortium import tell
from .verbs import example


@click.command(
    "enroll",
    epilog=example('site enroll --name north --institution "North Hospital" --out keys'),
)
@click.option("--name", required=True, help="The site's name in the plan's [[sites]].")
@click.option("--institution", required=True, help="The institution that the site belongs to.")
@click.option(
    "--out",
    required=True,
    metavar="KEYS",
    type=click.Path(path_type=Path),
    help="Folder of the keys and the request.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def enroll(name: str, institution: str, out: Path, as_json: bool) -> None:
    """Make the site's keys in KEYS, and NAME.request.json to send to the coordinator.

    signing.pem signs updates and supernode.key opens the connection; neither leaves KEYS. Keys
    that are there are kept.
    """
    from ..core.enroll import enroll_site

    tell(enroll_site(name, institution, out), "members", as_json=as_json)
