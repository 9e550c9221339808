"""A run as plain lines, for logs and pipes: no control codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..server.store import Release
from ..server.words import clean, duration, epsilon, size
from .view import Clock, View, metric_of


class PlainLines(View):
    """One line about every tenth of the rounds and one per stage: no control codes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console, self._clock = console, Clock()
        self._rounds, self._budget = 0, ""
        self._sites, self._odd = 0, Counter[str]()

    def seed(self, seed: int, number: int, count: int) -> None:
        """Say which seed begins."""
        self._line(f"seed {seed} ({number} of {count})")

    def stage(self, name: str) -> None:
        """Say which stage begins."""
        self._line(name)

    def note(self, text: str) -> None:
        """Say what happens around the rounds."""
        self._line(text)

    def started(
        self, plan: Plan, specs: Mapping[str, MechanismSpec], history: Sequence[Release]
    ) -> None:
        """Say what will run."""
        self._rounds, self._sites, self._clock = plan.rounds.count, len(plan.sites), Clock()
        self._budget = f" of {plan.privacy.epsilon:g}" if plan.privacy.enabled else ""
        self._odd.clear()
        done = f", {len(history)} of them done before" if history else ""
        self._line(f"{plan.consortium}: {self._sites} sites, {self._rounds} rounds{done}")

    def round_done(self, release: Release) -> None:
        """Say how it goes, about every tenth round and at the last one."""
        self._clock.tick()
        for site, code in release.refused:
            self._odd[f"{site} refused ({code})"] += 1
        self._odd.update(f"{site} late" for site in release.late)
        every = max(1, min(10, self._rounds // 3))
        if release.round % every and release.round != self._rounds:
            return
        parts = [f"round {release.round} of {self._rounds}", *_figures(release, self._budget)]
        parts.append(f"{len(release.sites)} of {self._sites} sites")
        parts += [f"{what} in {times} of the rounds since" for what, times in self._odd.items()]
        self._odd.clear()
        left = self._clock.left(self._rounds - release.round)
        if left is not None:
            parts.append(f"about {duration(max(1, round(left)))} left")
        self._line("  " + ", ".join(parts))

    def _line(self, text: str) -> None:
        self._console.print(Text(clean(text)), soft_wrap=True)


def _figures(release: Release, budget: str) -> list[str]:
    parts: list[str] = []
    name = metric_of(release.metrics)
    if name:
        parts.append(f"{name} {release.metrics[name]:.3f}")
    if release.epsilon_by_site:
        parts.append(f"epsilon {epsilon(max(release.epsilon_by_site.values()))}{budget}")
    parts.append(f"{size(release.bytes_up)} up, {size(release.bytes_down)} down")
    return parts
