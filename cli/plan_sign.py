"""``collegium plan sign``: show a member what is signed, ask, and add the signature in place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .asking import ask_to_sign
from .plan_leaves import leaves
from .verbs import example

if TYPE_CHECKING:
    from ..core.agreement_files import AgreementFolder
    from ..server.planner import Forecast


@click.command(
    "sign",
    epilog=example(
        "plan sign federation/agreement --key keys/member.pem",
        "plan sign plan.toml --key keys/member.pem --yes",
    ),
)
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    metavar="PEM",
    type=click.Path(path_type=Path),
    help="Your private key (`collegium consortium enroll`).",
)
@click.option("--yes", is_flag=True, help="Sign without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; needs --yes.")
def command(path: Path, key: Path, yes: bool, as_json: bool) -> None:
    """Sign the plan and roster in PATH as a member, after showing what they say.

    PATH is an agreement folder, a kit, or a plan file; without a roster beside it the plan
    alone is signed. Signing twice changes nothing.
    """
    from ..core.agreement_files import open_agreement, sign_agreement
    from ..core.public_keys import require_private
    from ..core.signing import fingerprint, load_private
    from ..server import planner

    found = open_agreement(path)
    forecast = planner.resolve(planner.check(found.plan_path))
    private = load_private(key)
    require_private(key)
    signer = fingerprint(private.public_key())
    if not as_json:
        show(found, forecast, signer)
    ask_to_sign(yes=yes, as_json=as_json)
    changed = sign_agreement(found, private)
    if as_json:
        click.echo(json.dumps(_machine(found, forecast, signer, changed), ensure_ascii=False))
        return
    if not changed:
        click.echo("You had signed this already: nothing changed.")
        return
    click.echo(f"Signed: {' and '.join(changed)} in {found.folder}")
    if found.roster is None:
        click.echo("There is no roster here: the plan alone is signed.")
    click.echo("Next: send the folder's .dsse files back to the coordinator.")


def show(found: AgreementFolder, forecast: Forecast, signer: str) -> None:
    """Print on stdout what a signature stands for."""
    for name, value in facts(found, forecast, signer):
        click.echo(f"{name:<14}{value}")
    click.echo("")


def facts(found: AgreementFolder, forecast: Forecast, signer: str) -> Iterator[tuple[str, str]]:
    """Yield each thing that a member should have read before signing."""
    plan, roster = found.plan, found.roster
    yield "Consortium", plan.consortium
    if roster is not None and roster.lab:
        yield "LAB", "all keys were made in one place; real sites refuse this roster"
    yield from _federation(found)
    homes = {} if roster is None else {site.name: site for site in roster.sites}
    spends = _spends(forecast, plan.privacy.delta)
    for site in plan.sites:
        entry = homes.get(site.name)
        home = f" ({entry.institution})" if entry else ""
        size = f"at most {site.public_records:,} {plan.privacy.unit}s"
        yield "Site", f"{site.name}{home}: {size}, {spends[site.name]}"
        if entry:
            yield "", f"signs with {entry.public_key}"
    steps = f"{plan.rounds.local_steps} step{'s' * (plan.rounds.local_steps > 1)}"
    yield "Rounds", f"{plan.rounds.count} of {steps}, unit {plan.privacy.unit}"
    yield "Model", f"{forecast.model} for {plan.model.task}; trains {plan.model.trainable}"
    for thing in leaves(plan, forecast):
        yield "Leaves a site", thing
    yield "Plan", plan.digest
    yield "Roster", "none here: the plan alone" if roster is None else roster.digest
    for app in () if roster is None else roster.apps:
        yield "App bundle", app
    for member in () if roster is None else roster.members:
        signed = _signed(found, member.public_key)
        yield "Member", f"{member.name} ({member.institution}) {member.public_key}, {signed}"
    yield "You sign as", signer


def _federation(found: AgreementFolder) -> Iterator[tuple[str, str]]:
    federation, roster = found.plan.federation, found.roster
    if roster is not None:
        yield "Coordinator", f"{roster.coordinator_institution} at {roster.address}"
    elif federation is not None:
        yield "Coordinator", f"{federation.coordinator} at {federation.address}"
    if federation is not None:
        yield "Signatures", f"{federation.signatures}, each of another institution"


def _spends(forecast: Forecast, delta: float) -> dict[str, str]:
    return {
        site.name: "no noise and no guarantee"
        if site.epsilon is None
        else f"epsilon {site.epsilon:.3f} at delta {delta:g}"
        for site in forecast.sites
    }


def _signed(found: AgreementFolder, key: str) -> str:
    signed = [
        what
        for what, envelope in (("plan", found.plan_envelope), ("roster", found.roster_envelope))
        if envelope is not None and key in envelope.signatures
    ]
    return f"has signed {' and '.join(signed)}" if signed else "has not signed"


def _machine(
    found: AgreementFolder, forecast: Forecast, signer: str, changed: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "signed": list(changed),
        "signer": signer,
        "plan_sha256": found.plan.digest,
        "roster_sha256": None if found.roster is None else found.roster.digest,
        "lab": found.roster is not None and found.roster.lab,
        "epsilon": {site.name: site.epsilon for site in forecast.sites},
        "delta": found.plan.privacy.delta,
    }
