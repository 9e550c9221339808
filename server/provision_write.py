"""Write what is distributed: the agreement that members sign, and one kit per site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.agreement import (
    PLAN_TYPE,
    ROSTER_TYPE,
    Envelope,
    Roster,
    counted,
    merge_envelopes,
    plan_payload,
    read_envelope,
    unsigned,
)
from ..core.agreement_files import (
    CA_FILE,
    PLAN_ENVELOPE,
    PLAN_FILE,
    README_FILE,
    ROSTER_ENVELOPE,
    SITE_FILE,
    SUPERNODE_FILE,
)
from ..core.files import write_atomic
from ..core.plan import Plan
from ..core.plan_file import write_plan
from .kit_files import SiteWords, readme_text, site_text
from .provision_folders import Folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """What was made or kept.

    ``missing`` counts the signatures that plan and roster still lack; ``signers`` are the keys
    that have signed each, whether they count or not.
    """

    folders: Folders
    plan: Plan
    roster: Roster
    signatures: int
    missing: Mapping[str, int]
    signers: Mapping[str, tuple[str, ...]]
    done: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Return whether plan and roster have enough signatures, and so every kit is complete."""
        return not any(self.missing.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A federation whose keys are made: what is about to be signed and distributed."""

    folders: Folders
    plan: Plan
    roster: Roster
    ca: bytes
    signatures: int
    done: tuple[str, ...]


def finish(
    draft: Draft, envelopes: Sequence[Envelope], *, words: Mapping[str, SiteWords] | None = None
) -> Provisioned:
    """Write agreement and kits; only signatures on these very bytes are taken in."""
    plan, roster = draft.plan, draft.roster
    files = {PLAN_FILE: _plan_text(plan)}
    missing: dict[str, int] = {}
    signers: dict[str, tuple[str, ...]] = {}
    done = [*draft.done]
    pins = [member.public_key for member in roster.members]
    for what, name, kind, payload in (
        ("plan", PLAN_ENVELOPE, PLAN_TYPE, plan_payload(plan)),
        ("roster", ROSTER_ENVELOPE, ROSTER_TYPE, roster.to_bytes()),
    ):
        envelope, note = _gathered(draft.folders.agreement / name, payload, kind, envelopes)
        files[name], signers[what] = envelope.to_bytes(), envelope.signers
        missing[what] = max(0, draft.signatures - len(counted(envelope, roster, pins)))
        done += [f"{name}: {note}"] if note and missing[what] else []
    for name, content in files.items():
        write_atomic(draft.folders.agreement / name, content)
    for site in roster.sites:
        own = _kit_texts(draft, site.name, missing, (words or {}).get(site.name, SiteWords()))
        public = {CA_FILE: draft.ca, SUPERNODE_FILE: f"{site.supernode_key}\n".encode()}
        for name, content in {**files, **public, **own}.items():
            write_atomic(draft.folders.kit(site.name) / name, content)
    return Provisioned(
        folders=draft.folders,
        plan=plan,
        roster=roster,
        signatures=draft.signatures,
        missing=missing,
        signers=signers,
        done=tuple(done),
    )


def _kit_texts(
    draft: Draft, site: str, missing: Mapping[str, int], words: SiteWords
) -> dict[str, bytes]:
    about = (draft.plan, draft.roster, site)
    text = site_text(*about, signatures=draft.signatures, words=words)
    readme = readme_text(*about, signatures=draft.signatures, missing=missing)
    return {SITE_FILE: text.encode(), README_FILE: readme.encode()}


def _gathered(
    path: Path, payload: bytes, kind: str, found: Sequence[Envelope]
) -> tuple[Envelope, str]:
    """Return all signatures on ``payload``, and a word on those that are on older bytes."""
    known = list(found)
    if path.exists():
        known.append(read_envelope(path.read_bytes()))
    same = [one for one in known if (one.payload_type, one.payload) == (kind, payload)]
    stale = {
        signer
        for one in known
        if one.payload_type == kind and one.payload != payload
        for signer in one.signers
    }
    whole = merge_envelopes(unsigned(payload, kind), *(one.to_bytes() for one in same))
    note = ""
    if stale:
        note = f"changed since {len(stale)} member(s) signed it; they must sign again"
    return read_envelope(whole), note


def _plan_text(plan: Plan) -> bytes:
    head = f"# Written by `collegium provision`; members sign this digest:\n# {plan.digest}\n"
    return (head + write_plan(plan)).encode()
