"""``collegium coordinator``: the Flower side of a federation: start it, run a plan, look at it."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from pathlib import Path
from typing import Any

import click

from ..core.errors import Interrupted, NotAvailable
from .signals import sigterm_interrupts
from .verbs import example

_FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
_STATE = click.option(
    "--state",
    metavar="STATE",
    type=click.Path(path_type=Path),
    help="Folder of Flower's database, logs and jobs [default: DIR/coordinator/state].",
)


@click.group(epilog=example("coordinator start lab", "coordinator run lab --out run"))
def group() -> None:
    """Run the Flower side: SuperLink, SuperExec, and the rounds of a signed plan.

    DIR is the folder that `collegium provision` made.
    """
    require_linux()


def require_linux() -> None:
    """Raise ``NotAvailable`` where a coordinator cannot run."""
    import sys

    if sys.platform != "linux":
        raise NotAvailable(
            "a coordinator runs on Linux",
            why="it relies on Linux's process groups and file locks",
            cure="`collegium simulate` runs a plan on this machine",
        )


@group.command(epilog=example("coordinator start lab", "coordinator start DIR --port 8000"))
@_FOLDER
@_STATE
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help="Loopback port of the SuperLink; sites come in through the reverse proxy "
    "[default: 9100; of a lab, the port of its plan].",
)
def start(folder: Path, state: Path | None, port: int | None) -> None:
    """Check every file, start SuperLink and SuperExec, and keep them running until Ctrl-C."""
    from ..server.coordinator import load_coordinator
    from ..server.coordinator_service import default_port, keep, serving

    coordinator = load_coordinator(folder)
    for warning in coordinator.warnings:
        click.secho(f"! {warning}", fg="yellow", bold=True)
    where = port or default_port(coordinator)
    with serving(coordinator, state=state, port=where, say=click.echo) as service:
        sites = len(coordinator.roster.sites)
        click.echo(f"{coordinator.plan.consortium}: plan {coordinator.plan.digest}")
        click.echo(f"SuperLink on {service.address}, {sites} sites registered")
        click.echo(f"logs in {service.state / 'logs'}")
        words = shlex.join(["collegium", "coordinator", "run", str(folder), "--out", "RUN"])
        ended = _until_signal()  # until here Ctrl-C interrupts the start itself
        click.echo(f"Next: {words}   (Ctrl-C here stops all)")
        keep(service, ended)
        click.echo("stopping")


@group.command(
    epilog=example(
        "coordinator run DIR --out run",
        "coordinator run DIR --out run --resume --supervise",
        "coordinator run DIR --out run --public test.npz --json",
    )
)
@_FOLDER
@click.option(
    "--out",
    required=True,
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Folder of the run.",
)
@_STATE
@click.option("--resume", is_flag=True, help="Continue the run in --out, or begin it.")
@click.option("--supervise", is_flag=True, help="Go on by itself after every crash.")
@click.option(
    "--public",
    metavar="SET.npz",
    type=click.Path(path_type=Path),
    help="Public records (x, y, name, origin) on which to measure the global model.",
)
@click.option("--json", "as_json", is_flag=True, help="Print result.json, nothing else.")
@click.option("--verbose", is_flag=True, help="Show what is logged, as it is logged.")
def run(folder: Path, out: Path, state: Path | None, **flags: Any) -> None:
    """Run the signed plan of DIR on the coordinator that is up, and write its result.

    Ends with 75 and the words that go on when it was interrupted: no durable round is lost.
    """
    from ..server.coordinator import Home, load_coordinator
    from ..server.coordinator_run import RunRequest
    from .coordinator_view import show_run

    as_json, verbose = flags.pop("as_json"), flags.pop("verbose")
    coordinator = load_coordinator(folder)
    for warning in coordinator.warnings:
        click.secho(f"! {warning}", fg="yellow", bold=True, err=True)
    where = (state or Home(folder=folder.absolute()).state).absolute()
    words = ["collegium", "coordinator", "run", str(folder), "--out", str(out)]
    words += ["--state", str(state)] if state else []
    words += ["--supervise"] if flags["supervise"] else []
    words += ["--json"] if as_json else []
    words += ["--verbose"] if verbose else []
    again = f"type {shlex.join([*words, '--resume'])} to go on"
    try:
        with sigterm_interrupts():
            asked = RunRequest(out=out, state=where, **flags)
            show_run(coordinator, asked, as_json=as_json, verbose=verbose)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted", why="Every durable round is kept", cure=again) from None
    except Interrupted as error:
        raise Interrupted(error.what, why=error.why, cure=again) from None


@group.command(epilog=example("coordinator status DIR", "coordinator status DIR --json"))
@_FOLDER
@_STATE
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def status(folder: Path, state: Path | None, as_json: bool) -> None:
    """Show what runs: coordinator, job, round, each site's state and last ledger head."""
    from ..server.coordinator import load_coordinator
    from ..server.coordinator_status import status_of
    from .coordinator_view import status_lines

    found = status_of(load_coordinator(folder), state)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        for line in status_lines(found):
            click.echo(line)


def _until_signal() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set, so that leaving is always in order."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    return ended
