"""A fresh process under watch: its tree's CPU seconds and memory, and nothing left of it after."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass(slots=True)
class Tree:
    """What was seen of a process and its descendants; memory in bytes, summed over processes."""

    started_at: float
    ended_at: float = 0.0
    return_code: int = 0
    output: str = ""
    peak_rss_bytes: int = 0
    cpu_by_process: dict[psutil.Process, float] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """Return user and system seconds of all processes, as last seen."""
        return sum(self.cpu_by_process.values())

    @property
    def seconds(self) -> float:
        """Return the wall time from start to end."""
        return self.ended_at - self.started_at

    def look(self, root: psutil.Process) -> None:
        """Take one sample."""
        resident = 0
        try:
            found = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for process in found:
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info()
            except psutil.Error:
                continue  # it ended between listing and looking
            self.cpu_by_process[process] = times.user + times.system
            resident += memory.rss
        self.peak_rss_bytes = max(self.peak_rss_bytes, resident)


def run_fresh(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    every_s: float = 0.2,
    limit_s: float = 600.0,
) -> Tree:
    """Run ``python COMMAND`` to its end, sampling its tree; end what it leaves behind.

    Standard output and error go to ``log``. Raises ``TimeoutError`` after ``limit_s`` seconds.
    """
    with log.open("wb") as sink:
        tree = Tree(started_at=time.time())
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            start_new_session=True,  # Ray's processes get sessions too, and Linux shares by session
        )
        root = psutil.Process(process.pid)
        try:
            while process.poll() is None:
                tree.look(root)
                if time.time() - tree.started_at > limit_s:
                    raise TimeoutError(f"{' '.join(command)} took more than {limit_s:g} s")
                time.sleep(every_s)
        finally:
            tree.ended_at = time.time()
            end_all([root, *tree.cpu_by_process])
            tree.return_code = process.wait()
    tree.output = log.read_text(errors="replace")
    return tree


def end_all(processes: Sequence[psutil.Process]) -> None:
    """End these processes, politely first; psutil never mistakes a reused process id."""
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        _quietly(process.terminate)
    _, stubborn = psutil.wait_procs(alive, timeout=3)
    for process in stubborn:
        _quietly(process.kill)
    psutil.wait_procs(stubborn, timeout=3)


def _quietly(action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except psutil.Error:
        return
