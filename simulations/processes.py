"""What ``up`` starts: a lab consortium of real processes on this machine, ended with it."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..client.supernode import SAFE
from ..core.files import write_atomic
from ..core.plan import Plan
from ..core.site_file import DataSection, LedgerSection, SiteFile, SiteLink
from ..data.reader_npz import ENCODED
from ..data.site_data import SiteData
from ..server.coordinator import Coordinator, load_coordinator
from ..server.coordinator_service import Say, Service, serving
from ..server.kit_files import SiteWords
from ..server.processes import Child, Command, environment
from ..server.provision import Provisioned, provision_lab
from ..server.public_file import write_public
from ..server.supervise import Keeper
from .consortium import KEYS
from .records import Records

PACKAGE = f"{__package__}".partition(".")[0]
FOLDER = "federation"
"""In the run's folder: what ``provision --lab`` makes, and the coordinator's state."""

POLL_S = 0.25
GRID_S = 0.1
"""On one machine, under a lab roster, the time of an answer tells nobody anything new."""

_STOP_S = 25.0  # a site finishes the step that it is in

_FINAL = (65, 66, 69, 77)
"""Wrong or missing input, not available, refused: a site that ends so will end so again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A provisioned lab in a run's folder: the coordinator's part and every site's file."""

    coordinator: Coordinator
    port: int
    sites: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """All processes of a lab, up; ``tick`` starts again what has died."""

    service: Service
    sites: Mapping[str, Child]
    keeper: Keeper

    def tick(self) -> None:
        """Look once at every process."""
        self.service.tick()
        self.keeper.tick()


def make_lab(plan: Plan, folder: Path, records: Records) -> Lab:
    """Write everything that the processes of a run need into its folder; nothing is started.

    Keys, ledgers and records that are there are kept; ports are chosen anew.
    """
    own = folder / FOLDER
    ports = _free_ports(len(plan.sites) + 1)
    made = provision_lab(
        plan,
        own,
        address=f"127.0.0.1:{ports[0]}",
        words={
            site.name: _words(plan, folder, site.name, records.by_site[site.name], port)
            for site, port in zip(plan.sites, ports[1:], strict=True)
        },
    )
    for site in plan.sites:
        _write_records(_site_folder(folder, site.name) / "records.npz", records.by_site[site.name])
    if len(records.test):
        write_public(folder, records.test)
    _keep_keys(folder, made, plan)
    return Lab(
        coordinator=load_coordinator(own),
        port=ports[0],
        sites={site.name: made.folders.kit(site.name) / "site.toml" for site in plan.sites},
    )


@contextmanager
def running(lab: Lab, *, say: Say) -> Generator[Processes]:
    """Start coordinator and sites, and end all of them on leaving, whatever happens.

    Call it from the main thread: the kernel ends the children with the thread that started them.
    """
    with ExitStack() as stack:
        service = stack.enter_context(serving(lab.coordinator, state=None, port=lab.port, say=say))
        sites = {name: _site_process(name, path) for name, path in lab.sites.items()}
        for child in sites.values():
            stack.callback(child.stop, _STOP_S)
        for child in sites.values():
            child.start()
        keeper = Keeper(
            sites.values(),
            on_restart=lambda name, code: say(f"{name} ended (exit code {code}); again"),
            final=_FINAL,
        )
        try:
            yield Processes(service=service, sites=sites, keeper=keeper)
        finally:
            _end_together(sites)


def site_file(lab: Lab, site: str) -> SiteFile:
    """Return a site's own words."""
    return SiteFile.load(lab.sites[site])


def _site_process(name: str, path: Path) -> Child:
    """Run a site as its people would; from its folder, so that its socket's path is short."""
    return Child(
        Command(
            name=f"site {name}",
            argv=(sys.executable, "-m", PACKAGE, "site", "start", path.name, "--lab"),
            environment=environment(SAFE | {"OMP_NUM_THREADS": "1"}),
            log=path.parent / "site.log",
            cwd=path.parent,
        )
    )


def _end_together(sites: Mapping[str, Child]) -> None:
    """Ask all to end before the first is waited for."""
    for child in sites.values():
        child.ask_to_stop()


def _words(plan: Plan, folder: Path, site: str, data: SiteData, port: int) -> SiteWords:
    kit = folder / FOLDER / "kits" / site

    def seen_from_kit(path: Path) -> str:
        return Path(os.path.relpath(path, kit)).as_posix()

    own = _site_folder(folder, site)
    units = data.train_units is not None
    return SiteWords(
        data=DataSection(
            asset=_asset_name(data.asset),
            reader="npz",
            path=seen_from_kit(own / "records.npz"),
            label="y",
            unit="unit" if units and plan.privacy.unit == "patient" else None,
        ),
        device="cpu",  # the same sums as the simulator's
        link=SiteLink(
            state=seen_from_kit(own), runtime_port=port, reply_grid_s=GRID_S, poll_s=POLL_S
        ),
        ledger=LedgerSection(
            path=seen_from_kit(folder / "ledgers" / f"{site}.sqlite"),
            anchor=seen_from_kit(own / "ledger.anchor"),
        ),
    )


def _site_folder(folder: Path, site: str) -> Path:
    return folder / "sites" / site


def _asset_name(text: str) -> str:
    """Return an asset's name as site files write it: a-z, 0-9 and inner hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _write_records(path: Path, data: SiteData) -> None:
    arrays = {name: getattr(data, name) for name in ("train_x", "train_y", "test_x", "test_y")}
    arrays[ENCODED] = np.array(True)  # no reader must read categories, labels, tokens twice
    if data.train_units is not None and data.test_units is not None:
        arrays |= {"train_units": data.train_units, "test_units": data.test_units}
    held = {"val_x": data.calibration_x, "val_y": data.calibration_y}
    if "train_units" in arrays:
        held["val_units"] = data.calibration_units
    arrays |= {name: values for name, values in held.items() if values is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue(), mode=0o600)


def _keep_keys(folder: Path, made: Provisioned, plan: Plan) -> None:
    """Copy the lab's signing keys to where a simulated run has them: the audit looks there."""
    keys = folder / KEYS
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    sources = {site.name: made.folders.lab_site(site.name) / "signing.pem" for site in plan.sites}
    sources["coordinator"] = made.folders.coordinator / "keys" / "coordinator.pem"
    for name, source in sources.items():
        target = keys / f"{name}.pem"
        if not target.exists():
            shutil.copyfile(source, target)
            target.chmod(0o600)


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on just now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
