"""A site's written word that this plan may train on these records; without it nothing starts."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..core.digest import canonical_bytes, digest_of, sha256_hex
from ..core.errors import Refused
from ..core.files import sync_folder, write_atomic
from ..core.reading import to_table
from ..core.signing import make_envelope, open_envelope
from ..core.site_file import SiteFile
from ..data.site_data import SiteData
from ..privacy.fingerprint import Register
from .control import Loaded
from .words import REGISTER, export_of, own_version

if TYPE_CHECKING:
    from .kit import Kit

FILE = "approval.json"
PAYLOAD_TYPE = "application/vnd.collegium.approval+json"
_CURE = "read `collegium site preflight SITE.toml`, then type `collegium site approve SITE.toml`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What was approved, by digests; ``at`` is in seconds since the epoch.

    ``words_sha256`` covers all of site.toml; ``records`` is the keyed fingerprint of training,
    test and calibration part together, as found and as the plan reads them (labels, too). It
    holds no count and nothing of a record.
    """

    site: str
    plan_sha256: str
    roster_sha256: str
    words_sha256: str
    records: str
    version: str
    at: float


def words_digest(file: SiteFile) -> str:
    """Return the digest of the site's own words: every table of site.toml."""
    tables = ("site", "data", "policy", "ledger", "hardware", "federation")
    return digest_of("collegium/site-file/1", {t: to_table(getattr(file, t)) for t in tables})


def records_fingerprint(file: SiteFile, data: SiteData) -> str:
    """Return the name of this export, keyed with the site's own salt; makes the register."""
    register = Register(file.state_path / REGISTER)
    name = export_of(data, register.salt).name
    if not name.also:
        return name.digest
    return sha256_hex(b"collegium/approved-records/2", name.digest.encode(), name.also[0].encode())


def loaded(file: SiteFile, kit: Kit) -> Loaded:
    """Return, by digest, what a site has read of kit and site.toml."""
    return Loaded(
        plan_sha256=kit.plan.digest,
        roster_sha256=kit.roster.digest,
        words_sha256=words_digest(file),
    )


def approval_of(file: SiteFile, kit: Kit, data: SiteData) -> Approval:
    """Return what approving now would mean."""
    return Approval(
        site=file.site.name,
        plan_sha256=kit.plan.digest,
        roster_sha256=kit.roster.digest,
        words_sha256=words_digest(file),
        records=records_fingerprint(file, data),
        version=own_version(),
        at=time.time(),
    )


def write_approval(file: SiteFile, approval: Approval, key: Ed25519PrivateKey) -> Path:
    """Write the approval, signed by the site's key (0600); return where."""
    path = file.state_path / FILE
    payload = canonical_bytes(asdict(approval))
    write_atomic(path, make_envelope(payload, [key], payload_type=PAYLOAD_TYPE), mode=0o600)
    return path


def withdraw(file: SiteFile) -> bool:
    """Remove the approval durably; return False when there was none."""
    path = file.state_path / FILE
    if not path.is_file():
        return False
    path.unlink()
    sync_folder(path.parent)
    return True


def read_approval(file: SiteFile, key: Ed25519PublicKey) -> Approval:
    """Return the approval that this site's key signed; raises ``Refused`` without one."""
    path = file.state_path / FILE
    if not path.is_file():
        raise Refused(
            f"site '{file.site.name}' has not approved this plan",
            why="no plan trains on a real site's records without the site's own written word",
            cure=_CURE,
        )
    payload = open_envelope(path.read_bytes(), [key], payload_type=PAYLOAD_TYPE)
    try:
        values: Any = json.loads(payload)
        if set(values) != {field.name for field in fields(Approval)}:
            raise ValueError
        return Approval(**values)
    except (ValueError, TypeError, RecursionError):
        raise Refused("the approval is not one of this version", cure=_CURE) from None


def require_agreed(file: SiteFile, kit: Kit, key: Ed25519PublicKey) -> Approval:
    """Return the approval once it covers plan, roster, site.toml and version; reads no records.

    Raises ``Refused`` and names everything that has changed since.
    """
    approval = read_approval(file, key)
    now = {
        "the site's name": (approval.site, file.site.name),
        "the plan": (approval.plan_sha256, kit.plan.digest),
        "the roster": (approval.roster_sha256, kit.roster.digest),
        "site.toml": (approval.words_sha256, words_digest(file)),
        "the version of collegium": (approval.version, own_version()),
    }
    _require_same([what for what, (then, today) in now.items() if then != today])
    return approval


def require_records(approval: Approval, file: SiteFile, data: SiteData) -> None:
    """Raise ``Refused`` unless these are the records that were approved."""
    if approval.records != records_fingerprint(file, data):
        _require_same(["the records"])


def _require_same(changed: list[str]) -> None:
    if changed:
        raise Refused(
            "the approval does not cover what would run now",
            why=f"changed since: {', '.join(changed)}",
            cure=_CURE,
        )
