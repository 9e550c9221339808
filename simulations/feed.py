"""A federation's events.jsonl as what a listener hears; every round is told once."""

from __future__ import annotations

from pathlib import Path

from ..core.plan import Plan
from ..server.events import Event, release_of
from ..server.federation_result import durable_rounds
from .listener import Listener


class Feed:
    """Turns the events of a run of processes into what a listener hears."""

    def __init__(self, plan: Plan, heard: Listener, folder: Path) -> None:
        self._plan, self._heard, self._folder = plan, heard, folder
        self._shown = 0

    def begin(self) -> None:
        """Tell what will run and the rounds that are durable already."""
        history = durable_rounds(self._folder)
        self._shown = len(history)
        self._heard.started(self._plan, {}, history)
        self._heard.stage("rounds")

    def hear(self, event: Event) -> None:
        """Tell one event."""
        match event["kind"]:
            case "seen":
                self._heard.site_state(event["site"], "waiting")
            case "gone":
                self._heard.site_state(event["site"], "absent")
            case "invited":
                for site in event["sites"]:
                    self._heard.invited(event["round"], site)
            case "answered" if event["round"]:  # a question before or after the rounds is none
                self._heard.answered(event["round"], event["site"], event["code"])
            case "round":
                release = release_of(event)
                if release.round > self._shown:
                    self._shown = release.round
                    self._heard.round_done(release)
            case _:
                return
