"""Time, chance, failpoints and the event log of one simulated federation; one seed, one history."""

from __future__ import annotations

import hashlib
import heapq
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

EPOCH = 1_700_000_000.0
"""What the wall clocks show when a simulation begins, in seconds."""


class Crash(BaseException):
    """The coordinator's process ends here: nothing catches it but its next start."""


class Stuck(BaseException):
    """More time has passed than any run may take."""


class SiteDown(BaseException):
    """A site's process ends here."""


class World:
    """What everything simulated shares. ``horizon`` is when faults cease, in seconds."""

    def __init__(self, seed: int, *, horizon: float) -> None:
        self.rng = random.Random(seed)
        self.time, self.wall_offset = 0.0, 0.0
        self.horizon, self.limit = horizon, 20 * horizon
        self.crash_at: set[int] = set()
        self.crash_in: set[tuple[str, int]] = set()
        self.site_crash_at: set[int] = set()
        self.actions, self.site_actions = 0, 0
        self.injected: Counter[str] = Counter()
        self.crashed_in: Counter[str] = Counter()
        self._passed: Counter[str] = Counter()
        self.log: list[str] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0

    @property
    def quiet(self) -> bool:
        """Return whether faults have ceased."""
        return self.time >= self.horizon

    def chance(self, probability: float, fault: str) -> bool:
        """Return whether a fault happens now; every one that does is counted."""
        if self.quiet or self.rng.random() >= probability:
            return False
        self.injected[fault] += 1
        return True

    def note(self, kind: str, **fields: Any) -> None:
        """Append a line to the event log."""
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        self.log.append(f"{self.time:.3f} {kind} {text}")

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the event log: the same seed gives the same."""
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()

    def act(self, kind: str) -> None:
        """Pass one boundary of the coordinator's actions, or die there."""
        self.actions += 1
        self._passed[kind] += 1
        here = self.actions in self.crash_at or (kind, self._passed[kind]) in self.crash_in
        if here and not self.quiet:
            self.injected["coordinator crash"] += 1
            self.crashed_in[kind] += 1
            self.note("crash", at=kind)
            raise Crash(kind)

    def act_at_site(self, site: str, kind: str) -> None:
        """Pass one boundary of a site's actions, or die there."""
        self.site_actions += 1
        if self.site_actions in self.site_crash_at and not self.quiet:
            self.injected["site crash"] += 1
            self.note("site-crash", site=site, at=kind)
            raise SiteDown(kind)

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Let something happen at that time; what is due at once happens in order of asking."""
        self._scheduled += 1
        heapq.heappush(self._heap, (max(when, self.time), self._scheduled, what))

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that falls into it."""
        until = self.time + seconds
        while self._heap and self._heap[0][0] <= until:
            when, _, what = heapq.heappop(self._heap)
            self.time = max(self.time, when)
            what()
        self.time = until


class SimClock:
    """The coordinator's clocks: the wall may jump, the other never does."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        """Return simulated wall time."""
        return EPOCH + self._world.time + self._world.wall_offset

    def monotonic(self) -> float:
        """Return simulated time since the beginning."""
        return self._world.time

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass; sites work meanwhile."""
        self._world.act("sleep")
        if self._world.time > self._world.limit:
            raise Stuck
        self._world.advance(seconds)
