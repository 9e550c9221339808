"""``python -m collegium.client.leash PID COMMAND...``: a command that never outlives its parent.

A SuperNode starts processes of its own. This small one stands between it and whoever supervises
it: it adopts every orphan below, and when it is told to stop, or its parent dies however it dies,
all of them end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 5.0
_LOOK_S = 0.05


def main(words: Sequence[str] | None = None) -> int:
    """Run the command until it ends, or until this process is told to; return its exit code."""
    parent, *command = list(sys.argv[1:] if words is None else words)
    die_with_parent(signal.SIGTERM)
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        stopped.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    if os.getppid() != int(parent):  # it died before the kernel was asked to tell
        return 1
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_leash,  # noqa: PLW1509  (this process has one thread)
    )
    while child.poll() is None and not stopped:
        time.sleep(_LOOK_S)
    end_all(os.getpid(), but=(os.getpid(),), reap=_reap)
    code = child.poll()
    return 1 if code is None or code < 0 else code


def die_with_parent(number: int) -> None:
    """Ask the kernel for a signal when the parent ends, also by kill -9 (Linux alone)."""
    prctl(_PR_SET_PDEATHSIG, number)


def prctl(option: int, value: int) -> None:
    """Call prctl(2); a system without it has no such promise, and the rest still holds."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def end_all(root: int, *, but: Sequence[int] = (), reap: Callable[[], None] | None = None) -> None:
    """End all that ``root`` started: SIGTERM first, SIGKILL after five seconds."""
    until = time.monotonic() + _GRACE_S
    _signal_all(root, signal.SIGTERM, but)
    while _living(root, but):
        if reap is not None:
            reap()
        if time.monotonic() > until:
            _signal_all(root, signal.SIGKILL, but)
        time.sleep(_LOOK_S)


def started_by(root: int) -> list[int]:
    """Return what lives below ``root`` or in its session, by what /proc says of each process.

    The session finds those whose own parent died before them.
    """
    below: dict[int, list[int]] = {}
    session: list[int] = []
    for pid, state, parent, leader in _processes():
        if state == "Z":
            continue
        below.setdefault(parent, []).append(pid)
        if leader == root:
            session.append(pid)
    found = set(session)
    waiting = [root, *session]
    while waiting:
        children = [pid for pid in below.get(waiting.pop(), []) if pid not in found]
        found.update(children)
        waiting += children
    return sorted(found)


def _processes() -> Iterator[tuple[int, str, int, int]]:
    """Yield (pid, state, parent, session) of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended just now
        yield int(folder.name), fields[0], int(fields[1]), int(fields[3])


def _living(root: int, but: Sequence[int]) -> list[int]:
    return [pid for pid in started_by(root) if pid not in but]


def _signal_all(root: int, number: int, but: Sequence[int]) -> None:
    for pid in _living(root, but):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _die_with_leash() -> None:
    """In the child, before it becomes the command: die if even the leash is killed by force."""
    die_with_parent(signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
