"""``coordinator start``: SuperLink and SuperExec, kept running until they are told to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.forms import split_address
from ._flwr_link import Control
from .coordinator import LOOPBACK, Coordinator
from .coordinator_flower import is_healthy, superexec, superlink, wait_ready
from .coordinator_state import running
from .processes import Child, require_free_port
from .supervise import Keeper

PORT = 9100
"""Where the SuperLink of a real federation listens, on loopback: the proxy has the plan's port."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A coordinator that is up; ``tick`` keeps it so."""

    address: str
    state: Path
    superlink: Child
    superexec: Child
    keeper: Keeper

    def tick(self) -> None:
        """Look once at both processes and start again what has ended."""
        self.keeper.tick()


@contextmanager
def serving(
    coordinator: Coordinator, *, state: Path | None, port: int, say: Say
) -> Generator[Service]:
    """Start both processes and register the sites' SuperNodes; end everything on leaving.

    Call it from the main thread: the kernel ends the children with the thread that started
    them. Raises ``OutputExists`` (a coordinator runs there already), ``NotAvailable`` (port
    taken, Flower refuses its flags) and ``Interrupted`` (not ready in time).
    """
    home = coordinator.home
    where = (state or home.state).absolute()
    with ExitStack() as stack:
        stack.enter_context(running(where, port))
        require_free_port(LOOPBACK, port)
        link, executor = superlink(home, where, port), superexec(home, where, port)
        stack.callback(link.stop)
        link.start()
        wait_ready(link, lambda: is_healthy(home.ca, port))
        address = f"{LOOPBACK}:{port}"
        register_sites(coordinator, address)
        stack.callback(executor.stop)  # ended first, and its ServerApp with it
        executor.start()
        keeper = Keeper(
            (link, executor),
            on_restart=lambda name, how: say(f"{name} ended (exit code {how}); starting it again"),
        )
        yield Service(
            address=address, state=where, superlink=link, superexec=executor, keeper=keeper
        )


def default_port(coordinator: Coordinator) -> int:
    """Return the SuperLink's port: the roster's own for a lab, whose sites come in directly."""
    if coordinator.roster.lab:
        return split_address(coordinator.roster.address)[1]
    return PORT


def register_sites(coordinator: Coordinator, address: str) -> None:
    """Let the SuperNodes of the signed roster connect, and no others."""
    with Control(address, coordinator.home.ca) as control:
        for site in coordinator.roster.sites:
            control.register(site.supernode_key, site.name)


def keep(service: Service, stop: threading.Event, *, look_s: float = 0.2) -> None:
    """Keep a service running until ``stop`` is set."""
    while not stop.wait(look_s):
        service.tick()
