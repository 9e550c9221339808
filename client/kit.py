"""Check every file of a site's kit, and the site's own keys, before anything else is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.agreement import Agreement, Roster, SiteEntry, verify_agreement
from ..core.agreement_files import (
    CA_FILE,
    KIT_FILES,
    PLAN_ENVELOPE,
    PLAN_FILE,
    ROSTER_ENVELOPE,
    SUPERNODE_FILE,
)
from ..core.digest import sha256_hex
from ..core.enroll import SIGNING_KEY, SUPERNODE_KEY
from ..core.envelopes import MAX_BYTES
from ..core.errors import MissingInput, Refused
from ..core.plan import Plan
from ..core.public_keys import load_ssh_private, require_private, ssh_text
from ..core.signing import fingerprint, load_private
from ..core.site_file import SiteFile

_MAX_STRAY = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A checked kit: what the members agreed on, and whom the site connects to.

    In a real kit ``plan`` has no ``[simulation]``: nobody signed that table.
    """

    folder: Path
    plan: Plan
    roster: Roster
    agreement: Agreement
    ca_certificate: bytes


def load_kit(site_file: SiteFile) -> Kit:
    """Return the kit that a site file names once every file in it has been checked.

    Reads no records. Raises ``MissingInput`` with all files that are not there, ``InvalidPlan``
    or ``InvalidInput`` for one that cannot be read, and ``Refused`` for one that is not what the
    site's pinned members signed, or not of this site's keys.
    """
    keys = site_file.keys_path
    return check_kit(site_file, signing=keys / SIGNING_KEY, supernode=keys / SUPERNODE_KEY)


def check_kit(site_file: SiteFile, *, signing: Path | None, supernode: Path) -> Kit:
    """Return the kit, checked with these own keys; raises as ``load_kit`` does.

    ``signing`` is None for the user who has the network and must not see that key.
    """
    folder = site_file.kit_path
    _require_files(site_file, tuple(path for path in (signing, supernode) if path is not None))
    plan = Plan.load(folder / PLAN_FILE)
    lab = site_file.site.mode == "simulation"
    agreement = verify_agreement(
        plan if lab else replace(plan, simulation=None),
        (folder / PLAN_ENVELOPE).read_bytes(),
        (folder / ROSTER_ENVELOPE).read_bytes(),
        pins=site_file.policy.signers,
        needed=site_file.policy.signatures,
        allow_lab=lab,
    )
    roster, certificate = agreement.roster, (folder / CA_FILE).read_bytes()
    if lab and not roster.lab:
        raise Refused(
            "this is a real roster, and the site is in simulation",
            why="seeded noise protects nobody, so a real federation must not get it",
            cure='write mode = "real" in [site]',
        )
    _require_plan(site_file, agreement.plan)
    entry = _entry(site_file, roster)
    _require_own_keys(entry, signing=signing, supernode=supernode)
    if sha256_hex(certificate) != roster.ca_sha256:
        raise _foreign(CA_FILE, "its digest is not the one in the signed roster")
    if (folder / SUPERNODE_FILE).read_bytes().strip() != entry.supernode_key.encode():
        raise _foreign(SUPERNODE_FILE, "it is not this site's key in the signed roster")
    return Kit(
        folder=folder,
        plan=agreement.plan,
        roster=roster,
        agreement=agreement,
        ca_certificate=certificate,
    )


def _require_files(site_file: SiteFile, own: tuple[Path, ...]) -> None:
    kit, keys = site_file.kit_path, site_file.keys_path
    wanted = [*(kit / name for name in KIT_FILES), *own]
    if missing := [str(path) for path in wanted if not path.is_file()]:
        raise MissingInput(
            f"not there: {', '.join(missing)}",
            why="a site starts with the coordinator's whole kit and its own keys",
            cure="copy the kit again; the keys are those of `collegium site enroll`",
        )
    for path in wanted:
        if path.stat().st_size > MAX_BYTES:
            raise _foreign(path.name, f"it has more than {MAX_BYTES // 1024**2} MiB")
    for path in _strays(kit, keys):
        raise Refused(
            f"the kit holds a private key: {path.name}",
            why="a site's keys are made at the site, so this one is known to somebody else",
            cure="remove it, and ask the coordinator how it came there",
        )


def _strays(kit: Path, keys: Path) -> Iterator[Path]:
    """Yield each private key in the kit that is not where this site keeps its own."""
    own = {(keys / name).resolve() for name in (SIGNING_KEY, SUPERNODE_KEY)}
    for path in sorted(kit.iterdir()):
        if not path.is_file() or path.resolve() in own:
            continue
        # Where kit and site share a folder, the network's user cannot read the site's own files.
        with suppress(PermissionError), path.open("rb") as stream:
            if b"PRIVATE KEY-----" in stream.read(_MAX_STRAY):
                yield path


def _require_plan(site_file: SiteFile, plan: Plan) -> None:
    if site_file.policy.plans and plan.digest not in site_file.policy.plans:
        raise Refused(
            "the plan is not one that this site allows",
            why=f"[policy] plans does not name {plan.digest}",
            cure="read the plan; if you agree, add its digest",
        )


def _entry(site_file: SiteFile, roster: Roster) -> SiteEntry:
    try:
        return roster.site(site_file.site.name)
    except KeyError:
        raise Refused(
            f"the roster has no site {site_file.site.name}",
            why=f"it names {', '.join(site.name for site in roster.sites)}",
            cure="correct [site] name, or ask the coordinator for the right kit",
        ) from None


def _require_own_keys(entry: SiteEntry, *, signing: Path | None, supernode: Path) -> None:
    for path in (signing, supernode):
        if path is not None:
            require_private(path)
    mine = ssh_text(load_ssh_private(supernode).public_key())
    held = [(supernode, mine, entry.supernode_key)]
    if signing is not None:
        mine = fingerprint(load_private(signing).public_key())
        held.insert(0, (signing, mine, entry.public_key))
    for path, mine, known in held:
        if mine != known:
            raise Refused(
                f"{path.name} is not the key of {entry.name} in the signed roster",
                why="the coordinator would take this site for another, or refuse it",
                cure="put the keys there that this site enrolled with; if the roster's key is "
                "not yours, do not start, and tell the other members",
            )


def _foreign(name: str, why: str) -> Refused:
    return Refused(f"{name} is not the one that was agreed", why=why, cure="fetch the kit again")
