"""The part of a site that has the network and no records: SuperNode and, where asked, the relay."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from ..core.agreement_files import CA_FILE
from ..core.enroll import SUPERNODE_KEY
from ..core.errors import MissingInput
from ..core.files import write_atomic
from ..core.site_file import SiteFile
from . import supernode
from .kit import Kit, check_kit
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

    All is checked as ``load_kit`` does, but for the key that this user cannot see. Raises
    ``MissingInput``, ``InvalidInput`` and ``Refused``.
    """
    return check_kit(file, signing=None, supernode=supernode_key(file))


def supernode_supervisor(file: SiteFile, kit: Kit) -> Supervisor:
    """Return what keeps this site's SuperNode running; nothing is started yet.

    Each start of it reads the CA again: it gets a copy of the bytes that were checked.
    """
    folder = network_folder(file)
    secret = runtime_secret(file, make=True)
    write_atomic(folder / CA_FILE, kit.ca_certificate)
    command = supernode.command(
        superlink=kit.roster.address,
        ca=folder / CA_FILE,
        key=supernode_key(file),
        port=file.federation.runtime_port,
        poll_s=file.federation.poll_s,
        home=folder / "flwr",
        secret=secret,
    )
    return Supervisor(command, folder / "supernode.log")


def relay_supervisor(file: SiteFile) -> Supervisor:
    """Return what keeps the relay running, from its socket to the SuperNode's loopback port."""
    address = f"127.0.0.1:{file.federation.runtime_port}"
    words = [sys.executable, "-m", "collegium.client.relay"]
    return Supervisor(
        [*words, os.fspath(relay_socket(file)), address], network_folder(file) / "relay.log"
    )
