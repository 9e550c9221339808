"""Keeps one command running: restarted after a growing pause, its output in a bounded log."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Literal

from .leash import end_all
from .supernode import LEASE_S

logger = logging.getLogger(__name__)

LEASES_S = LEASE_S + 5.0
"""A lease and some more: a SuperNode that died is only then forgotten."""
STILL_CONNECTED = "Exit Code: 305"
"""In a SuperNode's log: the coordinator still counts its predecessor as connected."""

_LOG_BYTES = 4_000_000
_LOG_FILES = 4
_LINE_BYTES = 65_536
_HEALTHY_S = 60.0

State = Literal["stopped", "running", "waiting"]


class Supervisor:
    """Runs ``command`` on a leash until ``stop``; use it from one thread of its own."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        first_pause_s: float = 1.0,
        longest_pause_s: float = 60.0,
        leases_s: float = LEASES_S,
    ) -> None:
        """``log`` takes what the command prints; four files of 4 MB are kept."""
        self._command, self._log = list(command), log
        self._environment = None if environment is None else {**os.environ, **environment}
        self._first_s, self._longest_s, self._leases_s = first_pause_s, longest_pause_s, leases_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self.state: State = "stopped"
        self.restarts = 0

    def start(self) -> None:
        """Start the command, and again whenever it ends."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # The leash asks the kernel to end with this *thread*: it lives as long as the supervisor.
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the command and all that it started; returns when nothing of it is left."""
        self._stop.set()
        child = self._child
        if child is not None and child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        if self._thread is not None:
            self._thread.join()

    @property
    def pid(self) -> int | None:
        """Return the leash's process id, None while nothing runs."""
        child = self._child
        return None if child is None or child.poll() is not None else child.pid

    def _run(self) -> None:
        pause = self._first_s
        while not self._stop.is_set():
            began = time.monotonic()
            refused = self._once()
            if self._stop.is_set():
                break
            if time.monotonic() - began > _HEALTHY_S:
                pause = self._first_s
            wait = self._leases_s if refused else pause
            pause = min(2 * pause, self._longest_s)
            logger.warning("%s ended; it starts again in %g s", self._command[:3][-1], wait)
            self.state = "waiting"
            self._stop.wait(wait)
            self.restarts += 1
        self.state = "stopped"

    def _once(self) -> bool:
        """Run the command to its end; return whether the coordinator refused it for now."""
        words = [sys.executable, "-m", "collegium.client.leash", str(os.getpid()), *self._command]
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # Ctrl-C in the terminal is for us: we stop it in order
        )
        self._child, self.state = child, "running"
        if self._stop.is_set():
            child.terminate()
        refused = threading.Event()
        log = threading.Thread(target=self._keep_log, args=(child.stdout, refused), daemon=True)
        log.start()
        child.wait()
        end_all(child.pid)  # only where the leash itself was killed is anything left
        log.join()
        return refused.is_set()

    def _keep_log(self, stream: IO[bytes], refused: threading.Event) -> None:
        """Keep what the command says; where it cannot be kept it is read all the same.

        A pipe that nobody reads stops who writes into it.
        """
        try:
            handler: logging.Handler = RotatingFileHandler(
                self._log, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES - 1, encoding="utf-8"
            )
        except OSError as error:
            logger.error("%s cannot be written: %s", self._log, error.strerror)
            handler = logging.NullHandler()
        with contextlib.closing(handler), stream:
            while raw := stream.readline(_LINE_BYTES):
                line = raw.decode("utf-8", "replace").rstrip()
                if STILL_CONNECTED in line:
                    refused.set()
                handler.handle(logging.makeLogRecord({"msg": line}))
