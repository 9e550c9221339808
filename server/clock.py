"""The two clocks of a run: wall time, which is told to sites, and time that only ever passes."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a run gets its time from; all in seconds."""

    def now(self) -> float:
        """Return wall time since the epoch: for deadlines that sites are told, nothing else."""
        ...

    def monotonic(self) -> float:
        """Return time that never jumps: whatever a run itself waits for is measured by it."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        ...


class SystemClock:
    """This machine's clocks."""

    def now(self) -> float:
        """Return wall time since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the time since some moment in the past, whatever anyone sets the clock to."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        time.sleep(seconds)
