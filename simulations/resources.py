"""How long a run takes and how much memory its whole process tree holds at its peak."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import psutil


class ResourceMeter:
    """Samples the resident memory of this process and its children; a context manager."""

    def __init__(self, every_s: float = 0.1) -> None:
        self._every_s = every_s
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        self.peak_rss_bytes = 0

    @property
    def seconds(self) -> float:
        """Return the wall time since this process started, imports included."""
        return time.time() - self._process.create_time()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_rss_bytes = max(self.peak_rss_bytes, self._resident())
            if self._stop.wait(self._every_s):
                return

    def _resident(self) -> int:
        total = 0
        for process in (self._process, *self._children()):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue  # it ended between listing and looking
        return total

    def _children(self) -> list[psutil.Process]:
        try:
            return self._process.children(recursive=True)
        except psutil.Error:
            return []
