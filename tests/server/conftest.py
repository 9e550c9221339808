"""A provisioned lab, and its sites on an in-process Grid with the keys of its roster."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class FederationLab:
    """A coordinator's folder made by the real provisioning, and sites that hold its keys."""

    plan: Any
    folder: Path
    address: str = "127.0.0.1:8000"
    records: Any = None
    sites: dict[str, Any] = field(default_factory=dict)
    consortium: Any = None

    def __post_init__(self) -> None:
        from collegium.server.provision import provision_lab

        provision_lab(self.plan, self.home, address=self.address)

    @property
    def home(self) -> Path:
        """Where provisioning wrote."""
        return self.folder / "federation"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    @property
    def state(self) -> Path:
        """The coordinator's state folder."""
        return self.home / "coordinator" / "state"

    def coordinator(self) -> Any:
        """Return the checked coordinator."""
        from collegium.server.coordinator import load_coordinator

        return load_coordinator(self.home)

    def open_sites(self) -> None:
        """Open the sites as the simulator does, with the roster's own keys."""
        from collegium.models import registry
        from collegium.simulations.consortium import KEYS, assemble

        keys = self.folder / "sites" / KEYS
        keys.mkdir(parents=True, exist_ok=True)
        copy_key(self.home / "coordinator/keys/coordinator.pem", keys / "coordinator.pem")
        for site in self.plan.sites:
            own = self.home / "lab" / "sites" / site.name / "signing.pem"
            copy_key(own, keys / f"{site.name}.pem")
        self.consortium = assemble(
            self.plan,
            self.records,
            lambda: registry.build(self.plan.model),
            self.folder / "sites",
        )
        self.sites = {site.name: site for site in self.consortium.sites}

    def prepare(self) -> Any:
        """Make the run's folder and job as `coordinator run` does; return the job."""
        from collegium.server.coordinator_run import prepare_job
        from collegium.server.federation_drive import federation_identity
        from collegium.server.run_folder import workspace

        coordinator = self.coordinator()
        identity = federation_identity(coordinator.plan, coordinator.roster)
        with workspace(self.run, coordinator.plan, identity=identity, resume=True):
            return prepare_job(coordinator, self.run, self.state)

    def drive(
        self,
        wrap: Callable[[str, Any], Any] | None = None,
        *,
        job: Any = None,
        run_id: int = 1,
    ) -> None:
        """Run the ServerApp's whole job on the in-process Grid."""
        from collegium.client.app import make_app
        from collegium.server.federation_app import run_job
        from collegium.simulations.grid import LocalGrid

        if not self.sites:
            self.open_sites()
        job = job or self.prepare()
        apps = [wrap(name, make_app(s)) if wrap else make_app(s) for name, s in self.sites.items()]
        with LocalGrid(apps, workers=2) as grid:
            run_job(grid, job, run_id=run_id)

    def finish(self) -> dict[str, Any]:
        """Write the result as `coordinator run` does; return it."""
        from collegium.server.coordinator_run import finish
        from collegium.server.result import read_result

        finish(self.coordinator(), self.run)
        return read_result(self.run)

    def close(self) -> None:
        """Close the ledgers."""
        if self.consortium is not None:
            self.consortium.close()


class LiveSites:
    """Real SuperNodes, and one executor thread per site in this process: sites without H3's shell.

    The sites and their keys are the lab's; only the process that holds them is this one.
    """

    def __init__(
        self, lab: FederationLab, first_port: int, *, superlink: str = "", slow: str = ""
    ) -> None:
        from collegium.client.supernode import command
        from collegium.server.processes import Child, Command, environment

        self.lab, self.slow, self.ports = lab, slow, {}
        lab.open_sites()
        self._stop = threading.Event()
        self.nodes = []
        for number, name in enumerate(lab.sites):
            self.ports[name] = first_port + number
            home = lab.folder / "supernodes" / name
            home.mkdir(parents=True, exist_ok=True)
            words = command(
                superlink=superlink or lab.address,
                ca=lab.home / "coordinator/certs/ca.crt",
                key=lab.home / "lab/sites" / name / "supernode.key",
                port=self.ports[name],
                poll_s=0.2,
                home=home,
            )
            log = home / "log"
            self.nodes.append(
                Child(Command(name=name, argv=tuple(words), environment=environment({}), log=log))
            )
        self._threads = [
            threading.Thread(target=self._answer, args=(name,), daemon=True) for name in lab.sites
        ]

    def __enter__(self) -> "LiveSites":
        for each in (*self.nodes, *self._threads):
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for node in self.nodes:
            node.stop(2.0)
        for thread in self._threads:
            thread.join(timeout=10.0)

    def _answer(self, name: str) -> None:
        from collegium.client._flwr_runtime import RuntimeAddress, RuntimeLink
        from collegium.client.app import make_app
        from collegium.client.executor import Executor

        apps = self.lab.coordinator().roster.apps
        app = make_app(self.lab.sites[name])

        def answer(message: Any, context: Any) -> Any:
            if name == self.slow and message.metadata.message_type == "train":
                time.sleep(1.0)  # so that a round is open for a while
            return app(message, context)

        with RuntimeLink(RuntimeAddress(port=self.ports[name])) as link:
            Executor(link, answer, apps=apps, grid_s=0).run(self._stop)


@pytest.fixture
def live_sites() -> Any:
    """The builder of a lab's sites behind real SuperNodes."""
    return LiveSites


def copy_key(source: Path, target: Path) -> None:
    """Copy a private key, for its owner alone."""
    target.write_bytes(source.read_bytes())
    target.chmod(0o600)


@pytest.fixture
def make_federation(tmp_path: Path, make_plan: Any, make_records: Any) -> Any:
    """The builder of provisioned labs; closes them all at the end."""
    import torch

    torch.set_num_threads(1)
    made: list[FederationLab] = []

    def make(plan: Any = None, **options: Any) -> FederationLab:
        plan = plan or make_plan(sites=3)
        lab = FederationLab(
            plan, tmp_path / f"lab-{len(made)}", records=make_records(plan), **options
        )
        made.append(lab)
        return lab

    yield make
    for lab in made:
        lab.close()
