"""The folder that members sign: plan.toml, plan.dsse and roster.dsse, in an agreement or a kit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .agreement import (
    PLAN_TYPE,
    ROSTER_TYPE,
    Envelope,
    Roster,
    add_signature,
    plan_payload,
    read_envelope,
    require_match,
)
from .errors import InvalidInput, MissingInput, Refused
from .files import write_atomic
from .plan import Plan
from .signing import fingerprint

PLAN_FILE = "plan.toml"
PLAN_ENVELOPE = "plan.dsse"
ROSTER_ENVELOPE = "roster.dsse"
CA_FILE = "ca.crt"
SUPERNODE_FILE = "supernode.pub"
SITE_FILE = "site.toml"
README_FILE = "README.txt"
KIT_FILES = (PLAN_FILE, PLAN_ENVELOPE, ROSTER_ENVELOPE, CA_FILE, SUPERNODE_FILE)
"""What a site needs of its kit; site.toml is the site's own, README.txt is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementFolder:
    """A plan and what is signed of it so far; no signature has been counted."""

    folder: Path
    plan_path: Path
    plan: Plan
    plan_envelope: Envelope | None
    roster_envelope: Envelope | None
    roster: Roster | None


def open_agreement(path: Path) -> AgreementFolder:
    """Read an agreement folder, a kit, or the plan.toml in one; a folder may hold a plan alone.

    Raises ``MissingInput``, ``InvalidPlan``, ``InvalidInput`` for a broken file and ``Refused``
    when the files are not about one plan.
    """
    folder = path if path.is_dir() else path.parent
    plan_path = folder / PLAN_FILE if path.is_dir() else path
    if not plan_path.exists():
        raise MissingInput(
            f"there is no plan at {plan_path}", cure="name an agreement folder or a plan file"
        )
    plan = Plan.load(plan_path)
    plan_envelope = _envelope(folder / PLAN_ENVELOPE, PLAN_TYPE)
    roster_envelope = _envelope(folder / ROSTER_ENVELOPE, ROSTER_TYPE)
    roster = None if roster_envelope is None else Roster.from_bytes(roster_envelope.payload)
    if plan_envelope is not None and plan_envelope.payload != plan_payload(plan):
        raise Refused(
            f"{plan_path} is not the plan in {PLAN_ENVELOPE}",
            why="its values were changed after the envelope was written",
            cure="fetch the folder again, or remove the envelope if the new plan is to be signed",
        )
    if roster is not None:
        require_match(plan, roster)
    return AgreementFolder(
        folder=folder,
        plan_path=plan_path,
        plan=plan,
        plan_envelope=plan_envelope,
        roster_envelope=roster_envelope,
        roster=roster,
    )


def sign_agreement(found: AgreementFolder, key: Ed25519PrivateKey) -> tuple[str, ...]:
    """Add a member's signature in place; return the names of the files that changed.

    Signing twice with one key changes nothing. Raises ``Refused`` for a key that is no member's
    in the roster: its signature would never count.
    """
    public, roster = fingerprint(key.public_key()), found.roster
    if roster is not None and public not in {member.public_key for member in roster.members}:
        raise Refused(
            "this key is no member's in the roster",
            why=f"{public} would never count",
            cure="enroll with it (`collegium consortium enroll`) and have the roster made again",
        )
    work = [(PLAN_ENVELOPE, PLAN_TYPE, found.plan_envelope, plan_payload(found.plan))]
    if roster is not None:
        work.append((ROSTER_ENVELOPE, ROSTER_TYPE, found.roster_envelope, roster.to_bytes()))
    changed: list[str] = []
    for name, kind, envelope, payload in work:
        if envelope is not None and public in envelope.signatures:
            continue
        before = None if envelope is None else envelope.to_bytes()
        write_atomic(found.folder / name, add_signature(before, payload, key, kind))
        changed.append(name)
    return tuple(changed)


def _envelope(path: Path, kind: str) -> Envelope | None:
    if not path.exists():
        return None
    try:
        envelope = read_envelope(path.read_bytes())
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.source}", why=error.why, cure=error.cure) from None
    if envelope.payload_type != kind:
        raise InvalidInput(
            f"{path} holds something else than its name says",
            why=f"its type is not {kind}",
            cure="fetch the folder again",
        )
    return envelope
