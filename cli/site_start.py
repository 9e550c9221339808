"""``collegium site start``: the site beside its records, its SuperNode, or both."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from ..core.errors import Interrupted, Refused
from .site_lines import PATH, load_site, site_log
from .verbs import example

if TYPE_CHECKING:
    from ..client.supervisor import Supervisor
    from ..core.site_file import SiteFile

logger = logging.getLogger(__name__)


@click.command(
    "start",
    epilog=example(
        "site start site.toml",
        "site start site.toml --part network",
        "site start site.toml --part records",
    ),
)
@PATH
@click.option(
    "--part",
    type=click.Choice(["both", "network", "records"]),
    default="both",
    show_default=True,
    help="network: SuperNode and relay, as the user who has no records. "
    "records: the site itself, as the user who needs no network.",
)
@click.option(
    "--lab",
    is_flag=True,
    help="A site in simulation mode: seeded noise, no approval, no guarantee. `up` uses it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(path: Path, part: str, lab: bool, as_json: bool) -> None:
    """Run the site of SITE.toml until Ctrl-C or SIGTERM.

    Kit, policy and the site's own approval are checked before any record is read. Answers 0 when
    it was stopped at rest, 75 when a training was cut (it is repeated at no further charge), 77
    when something refuses.
    """
    file = load_site(path)
    _require_word(file, lab=lab)
    if part == "network":
        from ..client.network import network_folder

        os.umask(0o027)  # the group reads the shared secret and reaches the relay
        with site_log(network_folder(file), as_json=as_json), _until_told() as stop:
            _network(file, stop)
        return
    os.umask(0o077)
    with site_log(file.state_path, as_json=as_json), _until_told() as stop:
        _records(file, stop, with_network=part == "both")


def _require_word(file: SiteFile, *, lab: bool) -> None:
    """Raise ``Refused`` unless the command line says what the file says: real, or a lab."""
    if lab == (file.site.mode == "simulation"):
        return
    if lab:
        raise Refused(
            "--lab is for a site in simulation mode",
            why='this file says mode = "real"',
            cure="leave --lab out",
        )
    raise Refused(
        'this site file says mode = "simulation"',
        why="its noise would be seeded and no approval asked for: real records have no protection",
        cure='write mode = "real"; on a trial machine without real records, add --lab',
    )


def _network(file: SiteFile, stop: threading.Event) -> None:
    from ..client.network import load_network_kit, relay_supervisor, supernode_supervisor

    kit = load_network_kit(file)
    running = [supernode_supervisor(file, kit), relay_supervisor(file)]
    try:
        for each in running:
            each.start()
        logger.info("the network part of site %s runs", file.site.name)
        stop.wait()
    finally:
        for each in running:
            each.stop()


def _records(file: SiteFile, stop: threading.Event, *, with_network: bool) -> None:
    from ..client._flwr_runtime import RuntimeAddress, RuntimeLink
    from ..client.kit import load_kit
    from ..client.network import relay_socket, runtime_secret, supernode_supervisor
    from ..client.rotation import complete_rotation
    from ..client.service import SiteService

    if complete_rotation(file.keys_path, file.ledger_path):
        logger.warning("a key rotation that was cut short is complete now")
    kit = load_kit(file)
    supernode: Supervisor | None = None
    if with_network:
        supernode = supernode_supervisor(file, kit)
    address = RuntimeAddress(
        port=file.federation.runtime_port,
        socket=None if with_network else relay_socket(file),
        secret=runtime_secret(file, make=with_network).read_bytes(),
    )
    if kit.roster.lab:
        logger.warning("LAB ROSTER: noise is seeded, so nothing here protects a record")
    service = SiteService(file, kit, supernode=supernode)
    try:
        with RuntimeLink(address) as link:
            service.run(link, stop, on_ready=supernode.start if supernode else None)
    finally:
        if supernode is not None:
            supernode.stop()


@contextmanager
def _until_told() -> Generator[threading.Event]:
    """Yield what SIGTERM and Ctrl-C set; a second one does not wait any longer."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.is_set():
            raise Interrupted(
                "stopped at once", cure="start again: a training that was cut is repeated"
            )
        logger.info("stopping (%s)", signal.Signals(number).name)
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
