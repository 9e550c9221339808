"""What a coordinator holds, all of it checked before anything is started.

The folder is the one that ``collegium provision`` made: the signed agreement, keys and
certificates, the app bundle. Nothing here starts a process or opens a port.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.agreement import Agreement, Roster, read_envelope, verify_agreement
from ..core.digest import sha256_hex
from ..core.errors import InvalidInput, MissingInput, Problem, Refused
from ..core.plan import Plan
from ..core.signing import fingerprint, load_private
from .certificates import hosts_of

LOOPBACK = "127.0.0.1"
"""Where the SuperLink listens: sites reach it through the reverse proxy alone."""

RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where provisioning put a coordinator's files."""

    folder: Path

    @property
    def agreement(self) -> Path:
        """Return the folder of plan.toml, plan.dsse and roster.dsse."""
        return self.folder / "agreement"

    @property
    def keys(self) -> Path:
        """Return the folder of private keys and the SuperExec secret."""
        return self.folder / "coordinator" / "keys"

    @property
    def certs(self) -> Path:
        """Return the folder of certificates."""
        return self.folder / "coordinator" / "certs"

    @property
    def app(self) -> Path:
        """Return the settings-only app bundle that is submitted."""
        return self.folder / "coordinator" / "app.fab"

    @property
    def ca(self) -> Path:
        """Return the consortium's CA certificate."""
        return self.certs / "ca.crt"

    @property
    def state(self) -> Path:
        """Return where Flower's database, logs and jobs go unless told otherwise."""
        return self.folder / "coordinator" / "state"

    @property
    def private_files(self) -> tuple[Path, ...]:
        """Return what nobody else may read."""
        names = ("server.key", "coordinator.pem", "superexec.secret")
        return tuple(self.keys / name for name in names)

    @property
    def needed_files(self) -> tuple[Path, ...]:
        """Return every file without which the coordinator cannot start."""
        words = tuple(self.agreement / name for name in ("plan.toml", "plan.dsse", "roster.dsse"))
        return (*words, self.ca, self.certs / "server.pem", self.app, *self.private_files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """A coordinator whose every file has been checked."""

    home: Home
    agreement: Agreement
    key: Ed25519PrivateKey
    expires: datetime

    @property
    def plan(self) -> Plan:
        """Return the signed plan."""
        return self.agreement.plan

    @property
    def roster(self) -> Roster:
        """Return the signed roster."""
        return self.agreement.roster

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person must be told although it stops nothing."""
        found: list[str] = []
        if self.roster.lab:
            found.append(
                "LAB ROSTER: every key was made on one machine, so nothing here protects anybody"
            )
        left = self.expires - datetime.now(UTC)
        if left < RENEW_BEFORE:
            found.append(
                f"the server certificate ends in {left.days} days: provision again to renew it"
            )
        return tuple(found)


def load_coordinator(folder: Path) -> Coordinator:
    """Return the coordinator in a provisioned folder once every check has passed.

    Raises ``MissingInput`` naming all files that are not there, ``InvalidInput`` for broken
    ones and ``Refused`` for open key files, a certificate out of its time, an agreement that
    does not hold, or a bundle, CA or key that the signed roster does not name.
    """
    home = Home(folder=folder.absolute())
    _require_files(home)
    _require_private(home.private_files)
    agreement = load_agreement(home)
    key = load_private(home.keys / "coordinator.pem")
    if problems := list(_strangers(home, agreement.roster, key)):
        raise Refused(
            "these files are not the ones that the members signed: "
            + "; ".join(f"{p.where} ({p.what})" for p in problems),
            why="the roster names each by its digest, and every site checks it",
            cure=problems[0].cure,
        )
    expires = _certificate_end(home)
    return Coordinator(home=home, agreement=agreement, key=key, expires=expires)


def load_agreement(home: Home) -> Agreement:
    """Return the signed plan and roster; raises ``Refused`` unless enough members signed both.

    The members are the roster's own: a coordinator guards against a damaged or unfinished
    folder with this, while the sites pin the members' keys and guard against the coordinator.
    """
    plan = Plan.load(home.agreement / "plan.toml")
    envelope = (home.agreement / "roster.dsse").read_bytes()
    roster = claimed_roster(envelope)
    return verify_agreement(
        plan,
        (home.agreement / "plan.dsse").read_bytes(),
        envelope,
        pins=[member.public_key for member in roster.members],
        needed=plan.federation.signatures if plan.federation else 1,
        allow_lab=roster.lab,
    )


def claimed_roster(envelope: bytes) -> Roster:
    """Return the roster that an envelope holds, no signature checked yet.

    Raises ``Refused`` for bytes that are no envelope and ``InvalidInput`` for no roster.
    """
    return Roster.from_bytes(read_envelope(envelope).payload)


def _require_files(home: Home) -> None:
    missing = [path for path in home.needed_files if not path.is_file()]
    if missing:
        names = ", ".join(str(path.relative_to(home.folder)) for path in missing)
        raise MissingInput(
            f"{home.folder} is not a provisioned coordinator: it lacks {names}",
            why="`collegium provision` makes these files and takes in the members' signatures",
            cure="run `collegium provision PLAN REQUESTS --out DIR` and name that DIR",
        )


def _require_private(paths: Sequence[Path]) -> None:
    open_ones = [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_ones:
        raise Refused(
            "others can read " + ", ".join(path.name for path in open_ones),
            why="these keys speak for the coordinator",
            cure="chmod 600 " + " ".join(str(path) for path in open_ones),
        )


def _strangers(home: Home, roster: Roster, key: Ed25519PrivateKey) -> Iterator[Problem]:
    again = "run `collegium provision` with this version; the members then sign the new roster"
    facts = (
        ("app.fab", sha256_hex(home.app.read_bytes()), roster.apps, "another bundle"),
        ("ca.crt", sha256_hex(home.ca.read_bytes()), (roster.ca_sha256,), "another CA"),
        (
            "coordinator.pem",
            fingerprint(key.public_key()),
            (roster.coordinator_key,),
            "another coordinator",
        ),
    )
    for where, found, allowed, what in facts:
        if found not in allowed:
            yield Problem(where=where, what=what, why="not in the roster", cure=again)


def _certificate_end(home: Home) -> datetime:
    """Return when the server certificate ends; raises ``Refused`` outside its time or names."""
    path = home.certs / "server.pem"
    certificate = _certificate(path)
    now = datetime.now(UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now < end:
        when = f"it is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
        raise Refused(
            "the server certificate is out of its time",
            why=f"{when}, and this machine's clock says {now:%Y-%m-%d %H:%M}",
            cure="check the clock, then provision again: it renews the certificate",
        )
    authority = _certificate(home.ca)
    if authority.not_valid_after_utc <= now:
        raise Refused(
            "the consortium's CA certificate has ended",
            why=f"it was valid until {authority.not_valid_after_utc:%Y-%m-%d}",
            cure="provision a new CA; every site then needs a new kit",
        )
    if LOOPBACK not in hosts_of(certificate):
        raise Refused(
            f"the server certificate does not name {LOOPBACK}",
            why="SuperLink and SuperExec meet there, over TLS as well",
            cure="provision again: its certificates name it",
        )
    return min(end, authority.not_valid_after_utc)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise InvalidInput(
            f"{path.name} is not a certificate in PEM", cure="provision again: it writes a new one"
        ) from None
