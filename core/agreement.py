"""When a plan and a roster are agreed: enough pinned members of enough institutions signed both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .digest import canonical_bytes
from .envelopes import (
    PLAN_TYPE,
    ROSTER_TYPE,
    Envelope,
    add_signature,
    merge_envelopes,
    read_envelope,
    unsigned,
)
from .errors import InvalidInput, Refused
from .forms import folded
from .plan import Plan
from .roster import Member, Roster, SiteEntry, same_institution

__all__ = [
    "PLAN_TYPE",
    "ROSTER_TYPE",
    "Agreement",
    "Envelope",
    "Member",
    "Roster",
    "SiteEntry",
    "add_signature",
    "counted",
    "merge_envelopes",
    "mismatches",
    "plan_payload",
    "read_envelope",
    "require_match",
    "unsigned",
    "verify_agreement",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A plan and a roster that belong together; ``signers`` are the keys that counted for both.

    Each of the two has enough signatures; when different members signed them, ``signers`` are
    those of the roster, which names the plan's digest.
    """

    plan: Plan
    roster: Roster
    signers: tuple[str, ...]


def plan_payload(plan: Plan) -> bytes:
    """Return the bytes of a plan that members sign: everything but ``[simulation]``."""
    return canonical_bytes(plan.agreement())


def verify_agreement(
    plan: Plan,
    plan_envelope: bytes,
    roster_envelope: bytes,
    *,
    pins: Sequence[str],
    needed: int,
    allow_lab: bool,
) -> Agreement:
    """Return the agreement once ``needed`` institutions' pinned members signed plan and roster.

    A coordinator passes the roster's member keys as ``pins``. A signature counts once per
    institution, and never by the coordinator's key, another key of its institution, or a key
    that is not pinned. ``needed`` may be 0 only under a lab roster that is allowed. Raises
    ``Refused``.
    """
    of_plan = _opened(plan_envelope, PLAN_TYPE, "plan")
    of_roster = _opened(roster_envelope, ROSTER_TYPE, "roster")
    roster = _roster(of_roster.payload)
    if roster.lab and not allow_lab:
        raise Refused(
            "this is a lab roster",
            why="all its keys were made in one place, so it proves nobody's consent",
            cure='ask for a kit with a real roster; mode = "simulation" is for trials alone',
        )
    if needed < 1 and not roster.lab:
        raise Refused(
            "no signature is asked for",
            why="anyone who reaches this machine could write a plan and a roster",
            cure="write the members' fingerprints into [policy] signers and how many must sign",
        )
    require_match(plan, roster)
    if of_plan.payload != plan_payload(plan):
        raise Refused(
            "plan.toml is not the plan that was signed",
            why="its values differ from those in plan.dsse",
            cure="fetch the kit again, or have the changed plan signed again",
        )
    for what, envelope in (("plan", of_plan), ("roster", of_roster)):
        found = counted(envelope, roster, pins)
        if len(found) < needed:
            raise _too_few(what, envelope, roster, pins=pins, found=found, needed=needed)
    return Agreement(plan=plan, roster=roster, signers=counted(of_roster, roster, pins))


def counted(envelope: Envelope, roster: Roster, pins: Sequence[str]) -> tuple[str, ...]:
    """Return the signers that count: pinned members, one per institution, in roster order."""
    pinned = set(pins) & set(envelope.signatures) - {roster.coordinator_key}
    by_institution: dict[str, str] = {}
    for member in roster.members:
        own = same_institution(member.institution, roster.coordinator_institution)
        if member.public_key in pinned and not own:
            by_institution.setdefault(folded(member.institution), member.public_key)
    return tuple(by_institution.values())


def require_match(plan: Plan, roster: Roster) -> None:
    """Raise ``Refused`` when a roster is not of this plan, with the first thing that differs."""
    for what, why in mismatches(plan, roster):
        raise Refused(
            f"the roster is not of this plan: {what}",
            why=why,
            cure="fetch plan and roster from the same kit; the coordinator provisions them anew",
        )


def mismatches(plan: Plan, roster: Roster) -> Iterator[tuple[str, str]]:
    """Yield (what, why) for each thing in which plan and roster differ."""
    if roster.consortium != plan.consortium:
        yield "another consortium", f"it says {roster.consortium}, the plan {plan.consortium}"
    if [site.name for site in roster.sites] != [site.name for site in plan.sites]:
        yield "other sites", "names and order of the sites are the plan's"
    if roster.plan_sha256 != plan.digest:
        yield "another plan's digest", "the plan or the roster was changed after the other"
    for site, entry in zip(plan.sites, roster.sites, strict=False):
        if site.public_key is not None and site.public_key != entry.public_key:
            yield f"another key for {site.name}", "the plan itself names that site's key"
    if roster.lab:
        return
    federation = plan.federation
    if federation is None:
        yield "the plan has no [federation]", "it was agreed for trials, not for real sites"
        return
    if federation.address != roster.address:
        yield "another address", "the coordinator's address stands in the plan"
    if not same_institution(federation.coordinator, roster.coordinator_institution):
        yield "another coordinator", "who runs the coordinator stands in the plan"


def _opened(raw: bytes, kind: str, what: str) -> Envelope:
    try:
        envelope = read_envelope(raw)
    except InvalidInput as error:
        raise Refused(f"{what}.dsse: {error.source}", cure=error.cure) from None
    if envelope.payload_type != kind:
        raise Refused(
            f"{what}.dsse does not hold a {what}",
            why=f"a signature on something else is no consent to a {what}",
            cure="fetch the file again from the coordinator",
        )
    return envelope


def _roster(payload: bytes) -> Roster:
    try:
        return Roster.from_bytes(payload)
    except InvalidInput as error:
        raise Refused(f"roster.dsse: {error.source}", why=error.why, cure=error.cure) from None


def _too_few(
    what: str,
    envelope: Envelope,
    roster: Roster,
    *,
    pins: Sequence[str],
    found: tuple[str, ...],
    needed: int,
) -> Refused:
    idle = len(envelope.signatures) - len(found)
    why = f"{len(found)} of {needed} needed institutions have signed it"
    if idle:
        why += (
            f"; {idle} more signature{'s' * (idle != 1)} do{'es' * (idle == 1)} not count: the key "
            "is not pinned here, is the coordinator's or one of its institution, or belongs to an "
            "institution that has signed already"
        )
    known = {member.public_key for member in roster.members}
    strangers = sum(pin not in known for pin in pins)
    if strangers:
        why += f"; {strangers} of the {len(pins)} pinned keys are no members in this roster"
    return Refused(
        f"the {what} has too few signatures",
        why=why,
        cure="members sign with `collegium plan sign`; then the coordinator provisions again",
    )
