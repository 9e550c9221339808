"""``collegium site approve``: the site's written word, taken back, and its keys renewed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import InvalidInput, Refused, UsageError
from .site_lines import PATH, load_site
from .verbs import example

if TYPE_CHECKING:
    from ..client.control import ControlClient
    from ..client.kit import Kit
    from ..core.mechanism import MechanismSpec
    from ..core.site_file import SiteFile
    from ..data.site_data import SiteData


@click.command(
    "approve",
    epilog=example(
        "site approve site.toml",
        "site approve site.toml --withdraw",
        "site approve site.toml --attach '2025 added, compared by M. Meier'",
        "site approve site.toml --cancel JOB",
        "site approve site.toml --rotate-keys",
    ),
)
@PATH
@click.option("--withdraw", is_flag=True, help="Take the approval back, at once.")
@click.option("--cancel", metavar="JOB", help="Stop one job of the running site for good.")
@click.option("--rotate-keys", is_flag=True, help="Make a new signing key; the old one is kept.")
@click.option(
    "--attach",
    metavar="NOTE",
    help="Approve, and sign that this is a new export of the asset: what it is, who checked.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    path: Path,
    *,
    withdraw: bool,
    cancel: str | None,
    rotate_keys: bool,
    attach: str | None,
    as_json: bool,
) -> None:
    """Write that this plan may train on these records, signed with the site's key.

    It names the digests of plan, roster and SITE.toml, this version, and the records' keyed
    fingerprint. When any of them changes the site does not start (77) before a new approval.
    ``may spend`` is the most that this plan can take of the asset's budget. An export that the
    asset's ledger does not know (77) becomes the asset's by --attach: it inherits what was spent.
    """
    if withdraw + bool(cancel) + rotate_keys + (attach is not None) > 1:
        raise UsageError(
            "--withdraw, --cancel, --rotate-keys and --attach are four things", cure="one each"
        )
    if attach is not None and not attach.strip():
        raise UsageError("--attach needs a note", cure="say what the export is and who checked it")
    file = load_site(path)
    if withdraw:
        said = _withdraw(file)
    elif cancel:
        said = _cancel(file, cancel)
    elif rotate_keys:
        said = _rotate(file)
    else:
        said = _approve(file, attach)
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False))
        return
    for name, value in said.items():
        click.echo(f"{name:<14} {value}")


def _approve(file: SiteFile, attach: str | None) -> dict[str, str]:
    """Approve what lies here; a running site is asked, so that it goes on."""
    from ..client.approval import FILE, approval_of, loaded, write_approval
    from ..client.kit import load_kit
    from ..client.words import budget_words, ledger_entries, mechanisms, read_records
    from ..core.enroll import SIGNING_KEY
    from ..core.signing import load_private

    kit = load_kit(file)
    spec = mechanisms(kit.plan, trainable_digest="")[file.site.name]
    most = {"may spend": budget_words(file, kit, spec, ledger_entries(file))}
    if client := _running(file):
        if attach is not None:
            client.close()
            raise Refused(
                "the site is running, with the records that it has read",
                why="its ledger has one writer at a time",
                cure="stop it, attach the new export, then start it",
            )
        try:
            client.approve(loaded(file, kit))
        finally:
            client.close()
        return {"approved": "what the running site has loaded, which is what lies here", **most}
    _require_allowed(file, kit, spec)
    data = read_records(file, kit.plan)
    _require_sound(file, kit, spec, data)
    if attach is not None:
        most = {"attached": _attach(file, kit, data, attach), **most}
    approval = approval_of(file, kit, data)
    write_approval(file, approval, load_private(file.keys_path / SIGNING_KEY))
    return {
        "approved": str(file.state_path / FILE),
        "plan": approval.plan_sha256,
        "roster": approval.roster_sha256,
        "site.toml": approval.words_sha256,
        "records": f"{approval.records} (keyed: it tells nobody else anything)",
        "version": approval.version,
        **most,
    }


def _attach(file: SiteFile, kit: Kit, data: SiteData, note: str) -> str:
    """Sign in the ledger that these records are an export of the asset; return its newest head."""
    from ..client.words import open_ledger, policy_of, seeded_noise
    from ..core.enroll import SIGNING_KEY
    from ..core.signing import load_private

    private = kit.plan.privacy.enabled or not seeded_noise(file, kit)
    key = load_private(file.keys_path / SIGNING_KEY)
    ledger = open_ledger(file, policy_of(file, private=private), key, data, attach=note)
    try:
        return f"{file.data.asset}, ledger head {ledger.head}"
    finally:
        ledger.close()


def _require_allowed(file: SiteFile, kit: Kit, spec: MechanismSpec) -> None:
    from ..client.words import policy_of, require_policy, seeded_noise

    seeded = seeded_noise(file, kit)
    policy = policy_of(file, private=kit.plan.privacy.enabled or not seeded)
    require_policy(policy, kit.plan, spec)


def _require_sound(file: SiteFile, kit: Kit, spec: MechanismSpec, data: SiteData) -> None:
    from ..data.checks import check

    bound = kit.plan.site(file.site.name).public_records
    if problems := check(data, model=kit.plan.model, public_records=bound, unit=spec.unit):
        raise InvalidInput(f"the records of site '{file.site.name}'", problems)


def _withdraw(file: SiteFile) -> dict[str, str]:
    from ..client import approval

    if client := _running(file):
        client.withdraw()
        client.close()
        return {"withdrawn": "the running site answers no further question"}
    there = approval.withdraw(file)
    return {"withdrawn": "the site will not start" if there else "there was no approval"}


def _cancel(file: SiteFile, job: str) -> dict[str, str]:
    from ..client.control import SOCKET, ControlClient

    client = ControlClient(file.state_path / SOCKET)
    try:
        known = client.cancel(job)
    finally:
        client.close()
    if known:
        return {"cancelled": job}
    return {
        "cancelled": job,
        "but": "this site's ledger has no such job: it is refused if it ever comes; "
        "`collegium site status` names the newest one",
    }


def _rotate(file: SiteFile) -> dict[str, str]:
    if client := _running(file):
        new = client.rotate()
        client.close()
    else:
        new = _rotate_at_rest(file)
    return {
        "new key": new,
        "old key": f"{file.keys_path / 'signing.pem.old'} (keep it: it signed the ledger so far)",
        "next": "`collegium site enroll` with the same --name, --institution and --out writes a "
        "new request (the old one is kept as .old); send it to the coordinator, who makes a new "
        "roster and kit for the members to sign; then start again and approve",
    }


def _rotate_at_rest(file: SiteFile) -> str:
    from ..client.approval import withdraw
    from ..client.rotation import complete_rotation, rotate_key
    from ..client.words import anchor_of
    from ..core.enroll import SIGNING_KEY
    from ..core.signing import load_private
    from ..privacy.ledger import Ledger

    complete_rotation(file.keys_path, file.ledger_path)
    ledger = Ledger(
        file.ledger_path,
        file.data.asset,
        file.policy.budget,
        load_private(file.keys_path / SIGNING_KEY),
        anchor=anchor_of(file),
    )
    try:
        new = rotate_key(ledger, file.keys_path)
    finally:
        ledger.close()
    withdraw(file)
    return new


def _running(file: SiteFile) -> ControlClient | None:
    """Return the way to the running site, None when none runs."""
    from ..client.control import SOCKET, ControlClient
    from ..client.sockets import answers

    path = file.state_path / SOCKET
    return ControlClient(path) if answers(path) else None
