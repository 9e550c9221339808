"""Who is told how a run goes: a live table, a notebook's callback, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..server.store import Release

RoundCallback = Callable[[Release], object]


@dataclass(slots=True)
class Listener:
    """Calls ``on_round`` and nothing else; the command line's live view overrides the rest."""

    on_round: RoundCallback | None = None

    def stage(self, name: str) -> None:
        """Hear that a stage begins: data, rounds, baselines, edge, report."""

    def started(
        self, plan: Plan, specs: Mapping[str, MechanismSpec], history: Sequence[Release]
    ) -> None:
        """Hear what will run, and which rounds are already durable."""

    def invited(self, round: int, site: str) -> None:
        """Hear that a site was asked to train (a federation of processes alone)."""

    def site_state(self, site: str, state: str) -> None:
        """Hear that a site has come (``waiting``) or is not connected (``absent``)."""

    def note(self, text: str) -> None:
        """Hear what happens around the rounds, in words."""

    def answered(self, round: int, site: str, code: str) -> None:
        """Hear that a site's reply was admitted (``ok``) or refused (a reason code)."""

    def round_done(self, release: Release) -> None:
        """Hear that a round is durable."""
        if self.on_round is not None:
            self.on_round(release)

    def progress(self, what: str, share: float) -> None:
        """Hear how far a long step is, from 0 to 1."""
