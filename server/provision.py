"""Provisioning: from a plan and requests to certificates, a roster, and one kit per site."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.agreement import (
    PLAN_TYPE,
    ROSTER_TYPE,
    Member,
    Roster,
    SiteEntry,
    add_signature,
    plan_payload,
    read_envelope,
)
from ..core.digest import sha256_hex
from ..core.enroll import ensure_site_keys
from ..core.errors import InvalidInput, InvalidPlan, Problem
from ..core.files import write_atomic
from ..core.forms import address_fault
from ..core.plan import Plan
from ..core.plan_federation import Federation
from ..core.public_keys import require_private, ssh_text
from ..core.signing import fingerprint, load_or_create
from ..core.site_file import SiteLink
from .certificates import ensure_certificates
from .kit_files import SiteWords
from .provision_folders import Folders, admitted, make_private
from .provision_write import Draft, Provisioned, finish
from .requests_found import notes_on, read_requests, require_complete

__all__ = ["LAB_ADDRESS", "Folders", "Provisioned", "SiteWords", "provision", "provision_lab"]

LAB_ADDRESS = "127.0.0.1:8000"
LAB_PORT = 9094


def provision(
    plan: Plan,
    requests: Path,
    out: Path,
    *,
    app: bytes | None = None,
    now: datetime | None = None,
) -> Provisioned:
    """Make, or bring up to date, everything of a real federation in ``out``.

    Keys that are there are kept; signatures found in ``requests`` or in ``out/agreement`` are
    taken in; kits are written anew. ``app`` is the Flower app bundle (default: this version's),
    ``now`` the time of making. Raises ``InvalidInput``, ``MissingInput``, and ``OutputExists``
    when ``out`` holds something else.
    """
    if plan.federation is None:
        raise InvalidPlan("the plan", [_NO_FEDERATION])
    folders = admitted(out, lab=False)
    found = read_requests(requests)
    require_complete(plan, plan.federation, found)
    agreed = replace(plan, simulation=None)  # a real federation does not honour it
    own = _coordinator(folders, agreed, host=plan.federation.host, app=app, now=now)
    sites = {site.name: site for site in found.sites}
    roster = _roster(
        agreed,
        own,
        federation=plan.federation,
        lab=False,
        members=[_member(one.name, one.institution, one.public_key) for one in found.members],
        sites=[
            SiteEntry(
                name=ref.name,
                institution=sites[ref.name].institution,
                public_key=sites[ref.name].public_key,
                supernode_key=sites[ref.name].supernode_key,
            )
            for ref in plan.sites
        ],
    )
    draft = Draft(
        folders=folders,
        plan=agreed,
        roster=roster,
        ca=own.ca,
        signatures=plan.federation.signatures,
        done=(*own.done, *notes_on(plan, plan.federation, found)),
    )
    return finish(draft, found.envelopes)


def provision_lab(
    plan: Plan,
    out: Path,
    *,
    address: str = LAB_ADDRESS,
    app: bytes | None = None,
    words: Mapping[str, SiteWords] | None = None,
    now: datetime | None = None,
) -> Provisioned:
    """Make a whole lab federation in ``out``: every key, every signature, complete kits.

    ``words`` says where each site's records are and what its machine is like; without them a
    kit's ``[data]`` is to be filled in, and the SuperNodes' loopback ports count up from 9094.
    The kits always name the lab's key folders. A plan without ``[federation]`` is allowed. Keys
    that are there are kept. Raises ``InvalidInput`` for a wrong address, and ``OutputExists``.
    """
    if fault := address_fault(address):
        raise InvalidInput(f"the address {fault}", cure=f'write HOST:PORT, like "{LAB_ADDRESS}"')
    folders = admitted(out, lab=True)
    make_private(folders.lab)
    known = plan.federation or Federation(address=address, coordinator="lab", signatures=1)
    federation = replace(known, address=address)
    own = _coordinator(folders, plan, host=federation.host, app=app, now=now)
    keys = _lab_members(folders, federation)
    roster = _roster(
        plan,
        own,
        federation=federation,
        lab=True,
        members=[_member(name, name, fingerprint(key.public_key())) for name, key in keys.items()],
        sites=[_lab_site(folders, ref.name) for ref in plan.sites],
    )
    signed = [
        read_envelope(add_signature(None, payload, key, kind))
        for kind, payload in ((PLAN_TYPE, plan_payload(plan)), (ROSTER_TYPE, roster.to_bytes()))
        for key in keys.values()
    ]
    draft = Draft(
        folders=folders,
        plan=plan,
        roster=roster,
        ca=own.ca,
        signatures=federation.signatures,
        done=own.done,
    )
    return finish(draft, signed, words=_lab_words(folders, plan, words or {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """What the coordinator makes for itself."""

    public_key: str
    ca: bytes
    app_sha256: str
    done: tuple[str, ...]


_NO_FEDERATION = Problem(
    where="[federation]",
    what="is missing",
    why="It says where the coordinator is, who runs it, and how many members must sign",
    cure='add [federation] with address = "HOST:PORT", coordinator and signatures, or use --lab',
)


def _coordinator(
    folders: Folders, plan: Plan, *, host: str, app: bytes | None, now: datetime | None
) -> _Own:
    own = folders.coordinator
    make_private(own)
    done: list[str] = []
    key_path, secret = own / "keys" / "coordinator.pem", own / "keys" / "superexec.secret"
    bundle = own / "app.fab"
    done.append(_said(key_path, own))
    key = load_or_create(key_path)
    done.append(_said(secret, own))
    if not secret.exists():
        write_atomic(secret, secrets.token_bytes(32), mode=0o600)
    for path in (key_path, secret):
        require_private(path)
    made = ensure_certificates(own, consortium=plan.consortium, host=host, now=now)
    fab = _built_app() if app is None else app
    old = bundle.read_bytes() if bundle.exists() else None
    done.append(f"app.fab: {'made' if old is None else 'kept' if old == fab else 'changed'}")
    if old != fab:
        write_atomic(bundle, fab)
    return _Own(
        public_key=fingerprint(key.public_key()),
        ca=made.ca,
        app_sha256=sha256_hex(fab),
        done=(*done, *made.done),
    )


def _said(path: Path, own: Path) -> str:
    return f"{path.relative_to(own).as_posix()}: {'kept' if path.exists() else 'made'}"


def _built_app() -> bytes:
    from ._flwr_app import build_app

    return build_app()


def _member(name: str, institution: str, public_key: str) -> Member:
    return Member(name=name, institution=institution, public_key=public_key)


def _lab_members(folders: Folders, federation: Federation) -> dict[str, Ed25519PrivateKey]:
    names = [f"lab-{number}" for number in range(1, federation.signatures + 1)]
    return {name: load_or_create(folders.lab_member(name)) for name in names}


def _lab_site(folders: Folders, name: str) -> SiteEntry:
    key, supernode = ensure_site_keys(folders.lab_site(name))
    return SiteEntry(
        name=name,
        institution=f"lab site {name}",
        public_key=fingerprint(key.public_key()),
        supernode_key=ssh_text(supernode.public_key()),
    )


def _lab_words(
    folders: Folders, plan: Plan, words: Mapping[str, SiteWords]
) -> dict[str, SiteWords]:
    """Return each site's words with its key folder; sites of one machine share no port."""
    found: dict[str, SiteWords] = {}
    for number, ref in enumerate(plan.sites):
        own = words.get(ref.name) or SiteWords(link=SiteLink(runtime_port=LAB_PORT + number))
        here = folders.kit(ref.name)
        keys = Path(os.path.relpath(folders.lab_site(ref.name), here)).as_posix()
        found[ref.name] = replace(own, link=replace(own.link, keys=keys))
    return found


def _roster(
    plan: Plan,
    own: _Own,
    *,
    federation: Federation,
    lab: bool,
    members: Sequence[Member],
    sites: Sequence[SiteEntry],
) -> Roster:
    roster = Roster(
        consortium=plan.consortium,
        plan_sha256=plan.digest,
        lab=lab,
        coordinator_institution=federation.coordinator,
        coordinator_key=own.public_key,
        address=federation.address,
        ca_sha256=sha256_hex(own.ca),
        apps=(own.app_sha256,),
        members=tuple(members),
        sites=tuple(sites),
    )
    return Roster.from_bytes(roster.to_bytes())
