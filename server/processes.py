"""Child processes that never outlive their parent: started, watched, stopped with their group."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO, cast

from ..core.errors import NotAvailable
from .words import clean

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_LOG_BYTES, _LOG_FILES = 5_000_000, 3
_TAIL_BYTES = 2_000
_LAST_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start: ``argv`` with an absolute program, its environment, the file it logs to.

    ``cwd`` is the folder in which it runs, None for ours.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    cwd: Path | None = None


def program(name: str) -> str:
    """Return the path of a program that was installed with this package; raises ``NotAvailable``.

    It is looked for beside the interpreter, never on PATH: another version must not run.
    """
    found = Path(sys.executable).parent / name
    if not os.access(found, os.X_OK):
        raise NotAvailable(
            f"there is no {name} beside {sys.executable}",
            why="Flower is installed with this package, in the same environment",
            cure="install the package again: pip install collegium",
        )
    return str(found)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a Flower process: ours without any stray setting, plus ``extra``.

    Flower's own variables can open further ports and proxies would see loopback traffic, so
    neither is inherited. PATH begins with this environment's programs: SuperExec starts its
    ServerApp by name.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLWR_") and not name.lower().endswith("_proxy")
    }
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    return kept | dict(extra)


def require_free_port(host: str, port: int) -> None:
    """Raise ``NotAvailable`` when something else listens on this TCP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise NotAvailable(
                f"port {port} on {host} cannot be used",
                why=f"{error.strerror}",
                cure="stop what listens there, or choose another with --port",
            ) from None


class Child:
    """One child process in a group of its own, whose output goes to a rotated log.

    The kernel ends it when the thread that started it is gone: start it from a thread that
    lives as long as the process, like the main one.
    """

    def __init__(self, command: Command) -> None:
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._last: deque[str] = deque(maxlen=1)

    @property
    def name(self) -> str:
        """Return the command's name."""
        return self.command.name

    @property
    def pid(self) -> int | None:
        """Return the process id, None when it was never started."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return how it ended (negative: by which signal), None while it runs."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the process; what is left of an earlier one's group is ended first."""
        self._end_group(signal.SIGKILL)
        parent, library = os.getpid(), ctypes.CDLL(None)
        self._process = subprocess.Popen(
            self.command.argv,
            env=dict(self.command.environment),
            cwd=self.command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=lambda: _die_with(parent, library),  # noqa: PLW1509  two system calls
        )
        stream = cast(BinaryIO, self._process.stdout)
        self._last = deque(maxlen=1)
        self._pump = threading.Thread(
            target=_pump,
            args=(stream, self.command.log, self._last),
            name=f"log-{self.name}",
            daemon=True,
        )
        self._pump.start()
        logger.info("%s started, process %d", self.name, self._process.pid)

    def ask_to_stop(self) -> None:
        """Ask the process, and it alone, to end (SIGTERM); return at once."""
        if self._process is not None and self.alive:
            self._process.terminate()

    def stop(self, grace_s: float = 10.0) -> None:
        """End the process and all that it started: SIGTERM, ``grace_s`` seconds, SIGKILL."""
        if self._process is None:
            return
        self._end_group(signal.SIGTERM)
        until = time.monotonic() + grace_s
        while self._group_lives() and time.monotonic() < until:
            time.sleep(0.05)
        self._end_group(signal.SIGKILL)
        self._process.wait()
        if self._pump is not None:
            self._pump.join(timeout=5.0)

    def tail(self) -> str:
        """Return the end of its log, for a person who looks for the cause."""
        try:
            raw = self.command.log.read_bytes()[-_TAIL_BYTES:]
        except OSError:
            return ""
        return raw.decode(errors="replace")

    @property
    def last_words(self) -> str:
        """Return the last line that this process wrote, fit for a terminal; '' for none.

        It is remembered, not read from the log: a full disk keeps no log.
        """
        if self._pump is not None and not self.alive:
            self._pump.join(timeout=1.0)  # a child of its own may hold the pipe open
        return self._last[0] if self._last else ""

    def _end_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.poll()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _group_lives(self) -> bool:
        if self._process is None:
            return False
        self._process.poll()
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def die_with_parent() -> None:
    """Ask the kernel to end this process with the one that started it, from now on.

    Flower's own watch over a ServerApp's parent interrupts it, and it then waits without end
    for a SuperLink that is gone as well.
    """
    _die_with(os.getppid(), ctypes.CDLL(None))


def _die_with(parent: int, library: ctypes.CDLL) -> None:
    if sys.platform == "linux":
        # SIGKILL: nobody would be left to insist
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def _pump(stream: BinaryIO, log: Path, last: deque[str]) -> None:
    """Copy a child's output to its log until it ends; a full disk loses lines, never blocks."""
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(
        log, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip("\n")
            if text.strip():
                last.append(clean(text.strip())[:_LAST_CHARACTERS])
            handler.emit(logging.LogRecord("child", logging.INFO, "", 0, text, None, None))
    handler.close()
