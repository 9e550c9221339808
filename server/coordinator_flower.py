"""The two Flower processes of a coordinator: SuperLink and SuperExec, with safe flags alone."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from ..core.errors import Interrupted, NotAvailable
from .coordinator import LOOPBACK, Home
from .processes import Child, Command, environment, program

READY_S = 120.0
"""Flower took 14 s on a loaded machine; this is where waiting ends."""

TASK_POLL_S = "0.2"


def flower_environment(state: Path) -> dict[str, str]:
    """Return the environment of both processes: state in our folder, nothing installed or told.

    The ServerApp inherits ``COLLEGIUM_STATE`` through SuperExec and finds its job there.
    """
    return environment(
        {
            "FLWR_HOME": str(state / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": TASK_POLL_S,
            "COLLEGIUM_STATE": str(state),
        }
    )


def superlink(home: Home, state: Path, port: int) -> Child:
    """Return the SuperLink: TLS, SuperNode authentication, own database, process isolation."""
    return Child(
        Command(
            name="superlink",
            argv=(
                program("flower-superlink"),
                *("--host", LOOPBACK, "--port", str(port), "--isolation", "process"),
                *("--database", str(state / "superlink.db"), "--enable-supernode-auth"),
                *("--ssl-certfile", str(home.certs / "server.pem")),
                *("--ssl-keyfile", str(home.keys / "server.key")),
                *("--ssl-ca-certfile", str(home.ca)),
                "--disable-runtime-dependency-installation",
                *("--superexec-auth-secret-file", str(home.keys / "superexec.secret")),
            ),
            environment=flower_environment(state),
            log=state / "logs" / "superlink.log",
        )
    )


def superexec(home: Home, state: Path, port: int) -> Child:
    """Return the SuperExec, which starts a ServerApp per Flower run; no parent, no install."""
    return Child(
        Command(
            name="superexec",
            argv=(
                program("flower-superexec"),
                *("--runtime-api-address", f"{LOOPBACK}:{port}"),
                *("--root-certificates", str(home.ca)),
                *("--superexec-auth-secret-file", str(home.keys / "superexec.secret")),
            ),
            environment=flower_environment(state),
            log=state / "logs" / "superexec.log",
        )
    )


def is_healthy(ca: Path, port: int, *, host: str = LOOPBACK, timeout_s: float = 2.0) -> bool:
    """Return whether ``GET https://host:port/health`` answers 200 under the consortium's CA."""
    context = ssl.create_default_context(cafile=str(ca))
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_ready(
    child: Child, ready: Callable[[], bool], *, within_s: float = READY_S, pause_s: float = 0.2
) -> None:
    """Return once ``ready`` says so.

    Raises ``NotAvailable`` when the process ends first (a wrong flag, file or port) and
    ``Interrupted`` when it takes too long.
    """
    until = time.monotonic() + within_s
    while not ready():
        if not child.alive:
            raise NotAvailable(
                f"{child.name} ended at once (exit code {child.exit_code})",
                why=f"its log is {child.command.log}; it said: {child.last_words or 'nothing'}",
                cure="mend what it names, then start again",
            )
        if time.monotonic() > until:
            raise Interrupted(
                f"{child.name} was not ready within {within_s:g} s",
                why=f"its log is {child.command.log}",
                cure="start again, on a machine with less load",
            )
        time.sleep(pause_s)
