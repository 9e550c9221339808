"""What hears a run for the command line: nothing, plain lines, or a live table."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..simulations.listener import Listener

if TYPE_CHECKING:
    from rich.console import Console

_WINDOW = 20  # rounds that the estimate of the time left looks back on


class View(Listener):
    """A listener with a beginning, an end and several seeds; this one shows nothing."""

    def seed(self, seed: int, number: int, count: int) -> None:
        """Hear that run ``number`` of ``count`` begins."""

    def stages(self, names: Sequence[str]) -> None:
        """Hear which stages this run has, where they are not a simulation's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the view; what it showed stays."""


def view_for(console: Console, *, silent: bool) -> View:
    """Return the view that suits where the output goes; ``silent`` shows nothing."""
    if silent:
        return View()
    if console.is_terminal and not console.is_dumb_terminal:
        from .live import LiveView

        return LiveView(console)
    from .lines import PlainLines

    return PlainLines(console)


class Clock:
    """How long the remaining rounds will take, from the last ones of this process."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque([time.monotonic()], maxlen=_WINDOW + 1)

    def tick(self) -> None:
        """Note that a round has ended."""
        self._ends.append(time.monotonic())

    def left(self, rounds: int) -> float | None:
        """Return the seconds that ``rounds`` more will take, None before two have ended."""
        if len(self._ends) < 3 or rounds <= 0:
            return None
        return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1) * rounds


def metric_of(metrics: Mapping[str, float]) -> str:
    """Return the metric that is shown by round, '' when nothing is public."""
    return "accuracy" if "accuracy" in metrics else next(iter(metrics), "")
