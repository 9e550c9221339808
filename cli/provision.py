"""``collegium provision``: certificates, a roster to sign, and one kit per site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import UsageError
from .verbs import example

if TYPE_CHECKING:
    from ..server.provision import Provisioned


@click.command(
    epilog=example(
        "provision plan.toml requests --out federation",
        "provision plan.toml --lab --out lab",
    )
)
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@click.argument("requests", metavar="[REQUESTS]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of the federation; one of an earlier provision is brought up to date.",
)
@click.option("--lab", is_flag=True, help="Make all keys and signatures here, for a trial.")
@click.option("--address", metavar="HOST:PORT", help="Of a lab's coordinator [127.0.0.1:8000].")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def command(
    *,
    plan_path: Path,
    requests: Path | None,
    out: Path,
    lab: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """Make CA, server certificate, roster and one kit per site from PLAN and REQUESTS.

    REQUESTS holds what members and sites sent: .request.json files, and signed .dsse files; a
    lab reads none. Run it again when signatures arrive: keys are kept, kits are written anew.
    """
    from ..server import planner
    from ..server.provision import LAB_ADDRESS, provision, provision_lab

    plan = planner.check(plan_path)
    if lab:
        found = provision_lab(plan, out, address=address or LAB_ADDRESS)
    elif requests is None:
        raise UsageError(
            "the folder REQUESTS is missing",
            why="a real roster holds keys that others made",
            cure="name the folder of their .request.json files, or use --lab for a trial",
        )
    elif address is not None:
        raise UsageError("--address is for --lab", cure="write it into the plan's [federation]")
    else:
        found = provision(plan, requests, out)
    if as_json:
        click.echo(json.dumps(_machine(found), ensure_ascii=False))
        return
    for line in _lines(found):
        click.echo(line)
    if lab and requests is not None:
        click.echo(f"{requests} was not read: a lab makes all keys itself.")


def _machine(found: Provisioned) -> dict[str, Any]:
    roster = found.roster
    return {
        "out": str(found.folders.out),
        "lab": roster.lab,
        "complete": found.complete,
        "signatures_needed": found.signatures,
        "signatures_missing": dict(found.missing),
        "plan_sha256": found.plan.digest,
        "roster_sha256": roster.digest,
        "address": roster.address,
        "members": [
            {
                "name": m.name,
                "institution": m.institution,
                "fingerprint": m.public_key,
                "signed": _signed(found, m.public_key),
            }
            for m in roster.members
        ],
        "kits": {
            site.name: {"path": str(found.folders.kit(site.name)), "complete": found.complete}
            for site in roster.sites
        },
        "done": list(found.done),
    }


def _lines(found: Provisioned) -> Iterator[str]:
    for line in found.done:
        yield f"  {line}"
    yield ""
    for member in found.roster.members:
        signed = " and ".join(_signed(found, member.public_key)) or "nothing yet"
        yield f"member  {member.name} ({member.institution}) has signed {signed}"
    for what, count in found.missing.items():
        state = f"{count} of {found.signatures} signatures are missing" if count else "signed"
        yield f"{what:<7} {state}"
    for site in found.roster.sites:
        state = "complete" if found.complete else "not complete: signatures are missing"
        yield f"kit     {found.folders.kit(site.name)}  {state}"
    yield ""
    yield from _next(found)


def _signed(found: Provisioned, key: str) -> list[str]:
    return [what for what, signers in found.signers.items() if key in signers]


def _next(found: Provisioned) -> Iterator[str]:
    agreement = found.folders.agreement
    if found.roster.lab:
        yield "A lab: all keys were made here, and real sites refuse it."
        yield f"Next: fill in [data] in each {found.folders.out / 'kits' / 'NAME' / 'site.toml'}"
    elif found.complete:
        yield "Next: send each site its kit. Sites compare the members' fingerprints with the"
        yield "members themselves, not with you."
    else:
        yield f"Next: send {agreement} to the members. Each signs with"
        yield f"  collegium plan sign {agreement} --key member.pem"
        yield "and sends it back. Put what comes back into REQUESTS and provision again."
