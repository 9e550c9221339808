"""A coordinator's state folder: who runs it now, and which job means which run folder."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import Interrupted, InvalidInput, MissingInput, NotAvailable, OutputExists
from ..core.files import write_atomic

STATE_VARIABLE = "COLLEGIUM_STATE"
_JOB = re.compile(r"[0-9a-z-]{1,64}")
_RUNNING = "running.json"
_HOLDER = ".serverapp.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a ServerApp must know: its run folder and the coordinator's folder, both absolute."""

    job: str
    run: Path
    home: Path


def write_job(state: Path, job: Job) -> None:
    """Make a job known to the ServerApps that this coordinator starts."""
    values = {"run": str(job.run.absolute()), "home": str(job.home.absolute())}
    write_atomic(_job_path(state, job.job), json.dumps(values).encode(), mode=0o600)


def read_job(state: Path, name: str) -> Job:
    """Return a job by its id; raises ``InvalidInput`` or ``MissingInput``.

    The id comes over the network: it names a file, so nothing that could be a path may be one.
    """
    path = _job_path(state, name)
    try:
        values: Any = json.loads(path.read_bytes())
        run, home = Path(values["run"]), Path(values["home"])
    except FileNotFoundError:
        raise MissingInput(
            f"this coordinator has no job {name}",
            why="`collegium coordinator run` makes one before it submits the app",
            cure="run it again with --resume",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise _no_job(name) from None
    if not (run.is_absolute() and home.is_absolute()):
        raise _no_job(name)
    return Job(job=name, run=run, home=home)


def jobs(state: Path) -> list[Job]:
    """Return every job of this coordinator, the last submitted one last."""
    paths = sorted((state / "jobs").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return [read_job(state, path.stem) for path in paths]


def _job_path(state: Path, name: str) -> Path:
    if not _JOB.fullmatch(name):
        raise _no_job(name)
    return state / "jobs" / f"{name}.json"


def _no_job(name: str) -> InvalidInput:
    return InvalidInput(
        f"{name[:64]!r} is not a job of this coordinator",
        why="a job's id has up to 64 of a-z, 0-9 and hyphens, and a file of its own",
        cure="submit runs with `collegium coordinator run` alone",
    )


# --- who runs -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A coordinator that is up: the supervising process and the SuperLink's loopback port."""

    pid: int
    port: int


@contextmanager
def running(state: Path, port: int) -> Generator[None]:
    """Hold the state folder for one coordinator; raises ``OutputExists`` when it is taken."""
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    descriptor = os.open(state / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputExists(
                f"a coordinator already runs on {state}",
                why="two SuperLinks on one database would lose messages",
                cure="stop the other one, or give this one its own --state",
            ) from None
        values = {"pid": os.getpid(), "port": port}
        write_atomic(state / _RUNNING, json.dumps(values).encode())
        yield
        (state / _RUNNING).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def find_running(state: Path) -> Running | None:
    """Return the coordinator that is up on this state folder, None when there is none."""
    try:
        with (state / ".lock").open("rb") as stream:
            if not _is_held(stream.fileno()):
                return None
        values = json.loads((state / _RUNNING).read_bytes())
        return Running(pid=int(values["pid"]), port=int(values["port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- one ServerApp per run folder ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The ServerApp that writes into a run folder now, and the Flower run it belongs to."""

    pid: int
    run_id: int


@contextmanager
def hold_run(folder: Path, run_id: int, *, within_s: float = 300.0) -> Generator[None]:
    """Be the only ServerApp that writes into this run; an older one is waited for.

    A SuperLink that comes back may leave an old ServerApp at work beside the new one. The
    kernel frees the lock when its holder ends, however it ends. Raises ``Interrupted`` when it
    does not end ``within_s`` seconds.
    """
    descriptor = os.open(folder / _HOLDER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + within_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Interrupted(
                        f"another ServerApp is still at work in {folder}",
                        why="two writers would fold one update twice",
                        cure="wait for it or end it, then --resume",
                    ) from None
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "run_id": run_id}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(folder: Path) -> Holder | None:
    """Return which ServerApp holds a run folder, None when none does."""
    try:
        with (folder / _HOLDER).open("rb") as stream:
            if not _is_held(stream.fileno()):
                return None
            values = json.loads(stream.read())
        return Holder(pid=int(values["pid"]), run_id=int(values["run_id"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_holder(folder: Path, *, within_s: float = 10.0) -> None:
    """End the ServerApp that holds a run folder: SIGTERM, then SIGKILL; then nobody holds it.

    For one whose Flower run is over: it can deliver nothing any more. Raises ``NotAvailable``
    when it belongs to another user, and when it does not end, each sign ``within_s`` seconds.
    """
    begun = time.monotonic()
    while (holder := holder_of(folder)) is not None:
        waited = time.monotonic() - begun
        if waited > 2 * within_s:
            raise _held_on(holder, folder, "it does not end, not even by SIGKILL")
        try:
            os.kill(holder.pid, signal.SIGTERM if waited <= within_s else signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended just now, or another is taking its place
        except PermissionError:
            raise _held_on(holder, folder, "it belongs to another user of this machine") from None
        time.sleep(0.2)


def _held_on(holder: Holder, folder: Path, why: str) -> NotAvailable:
    return NotAvailable(
        f"process {holder.pid} holds {folder} and cannot be ended from here",
        why=why,
        cure=f"end process {holder.pid} as its owner, then --resume",
    )


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False  # closing the file frees what the look took
