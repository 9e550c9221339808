"""The part of a site that has the network and no records: SuperNode and, where asked, the relay."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import replace
from pathlib import Path

from ..core.agreement import verify_agreement
from ..core.agreement_files import CA_FILE, KIT_FILES, PLAN_ENVELOPE, PLAN_FILE, ROSTER_ENVELOPE
from ..core.digest import sha256_hex
from ..core.enroll import SUPERNODE_KEY
from ..core.errors import MissingInput, Refused
from ..core.files import write_atomic
from ..core.plan import Plan
from ..core.public_keys import load_ssh_private, require_private, ssh_text
from ..core.site_file import SiteFile
from . import supernode
from .kit import Kit
from .supervisor import Supervisor

FOLDER = "net"
"""Its own folder in the state folder: the only one that it writes."""
RELAY = "relay.sock"
SECRET = "runtime.secret"


def network_folder(file: SiteFile) -> Path:
    """Return the folder of the SuperNode's state, log, secret and relay."""
    return file.state_path / FOLDER


def relay_socket(file: SiteFile) -> Path:
    """Return where the relay listens."""
    return network_folder(file) / RELAY


def runtime_secret(file: SiteFile, *, make: bool) -> Path:
    """Return the file of the secret that SuperNode and site process share.

    Without it any user of this machine could take the site's tasks from the loopback port. Made
    with mode 0640 where ``make`` is set: the group is that of both users. Raises ``MissingInput``.
    """
    path = network_folder(file) / SECRET
    if not path.is_file():
        if not make:
            raise MissingInput(
                f"there is no {path}",
                why="the network part writes it when it starts",
                cure="start `collegium site start SITE.toml --part network` first",
            )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        write_atomic(path, secrets.token_hex(32).encode(), mode=0o640)
    return path


def supernode_key(file: SiteFile) -> Path:
    """Return the key that opens the connection: the network user's own copy where there is one."""
    own = network_folder(file) / SUPERNODE_KEY
    return own if own.exists() else file.keys_path / SUPERNODE_KEY


def load_network_kit(file: SiteFile) -> Kit:
    """Return the checked kit for the user who has the network and not the site's signing key.

    Plan, roster and CA are checked as ``load_kit`` does, and the SuperNode's key. Raises
    ``MissingInput``, ``InvalidInput`` and ``Refused``.
    """
    folder, lab = file.kit_path, file.site.mode == "simulation"
    wanted = [folder / name for name in KIT_FILES]
    if missing := [path.name for path in [*wanted, supernode_key(file)] if not path.is_file()]:
        raise MissingInput(
            f"not there: {', '.join(missing)}", cure="copy the kit, and the SuperNode's key, again"
        )
    plan = Plan.load(folder / PLAN_FILE)
    agreement = verify_agreement(
        plan if lab else replace(plan, simulation=None),
        (folder / PLAN_ENVELOPE).read_bytes(),
        (folder / ROSTER_ENVELOPE).read_bytes(),
        pins=file.policy.signers,
        needed=file.policy.signatures,
        allow_lab=lab,
    )
    certificate = (folder / CA_FILE).read_bytes()
    if sha256_hex(certificate) != agreement.roster.ca_sha256:
        raise Refused(f"{CA_FILE} is not the one that was agreed", cure="fetch the kit again")
    require_private(supernode_key(file))
    mine = ssh_text(load_ssh_private(supernode_key(file)).public_key())
    known = {site.name: site.supernode_key for site in agreement.roster.sites}
    if known.get(file.site.name) != mine:
        raise Refused(
            f"{SUPERNODE_KEY} is not the key of {file.site.name} in the signed roster",
            why="the coordinator would refuse it",
            cure="copy the key that this site enrolled with",
        )
    return Kit(
        folder=folder,
        plan=agreement.plan,
        roster=agreement.roster,
        agreement=agreement,
        ca_certificate=certificate,
    )


def supernode_supervisor(file: SiteFile, kit: Kit) -> Supervisor:
    """Return what keeps this site's SuperNode running; nothing is started yet."""
    folder = network_folder(file)
    command = supernode.command(
        superlink=kit.roster.address,
        ca=file.kit_path / CA_FILE,
        key=supernode_key(file),
        port=file.federation.runtime_port,
        poll_s=file.federation.poll_s,
        home=folder / "flwr",
        secret=runtime_secret(file, make=True),
    )
    return Supervisor(command, folder / "supernode.log")


def relay_supervisor(file: SiteFile) -> Supervisor:
    """Return what keeps the relay running, from its socket to the SuperNode's loopback port."""
    address = f"127.0.0.1:{file.federation.runtime_port}"
    words = [sys.executable, "-m", "collegium.client.relay"]
    return Supervisor(
        [*words, os.fspath(relay_socket(file)), address], network_folder(file) / "relay.log"
    )
