"""What a person sees of a real run: the same live view as a simulation's, fed from its events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..server.coordinator import Coordinator
    from ..server.coordinator_run import RunRequest
    from ..server.events import Event
    from .view import View


def show_run(
    coordinator: Coordinator, asked: RunRequest, *, as_json: bool, verbose: bool
) -> dict[str, Any]:
    """Run a job with one live view, print its summary or result.json; return the result."""
    from rich.console import Console

    from ..server.coordinator_run import run_federation
    from ..server.result import FILE
    from .running import logging_on
    from .summary import show
    from .view import view_for

    console = Console(highlight=False, markup=False)
    view = view_for(console, silent=as_json)
    view.stages(("rounds", "report"))
    feed = Feed(coordinator, view, asked.out)
    with logging_on(console, verbose=verbose, stderr=as_json), view:
        values = run_federation(
            coordinator, asked, on_event=feed.hear, on_flower=view.note, on_job=feed.begin
        )
    if as_json:
        click.echo((asked.out / FILE).read_text(encoding="utf-8"), nl=False)
    else:
        show(console, values, asked.out)
    return values


class Feed:
    """Turns the events of a real run into what a view hears; every round is shown once."""

    def __init__(self, coordinator: Coordinator, view: View, folder: Path) -> None:
        self._coordinator, self._view, self._folder = coordinator, view, folder
        self._shown = 0

    def begin(self, job: str) -> None:
        """Show what will run and the rounds that are durable already."""
        from ..server.federation_result import durable_rounds

        history = durable_rounds(self._folder)
        self._shown = len(history)
        self._view.started(self._coordinator.plan, {}, history)
        self._view.stage("rounds")

    def hear(self, event: Event) -> None:
        """Show one event."""
        from ..server.events import release_of

        match event["kind"]:
            case "seen":
                self._view.site_state(event["site"], "waiting")
            case "gone":
                self._view.site_state(event["site"], "absent")
            case "invited":
                for site in event["sites"]:
                    self._view.invited(event["round"], site)
            case "answered":
                self._view.answered(event["round"], event["site"], event["code"])
            case "round":
                release = release_of(event)
                if release.round > self._shown:
                    self._shown = release.round
                    self._view.round_done(release)
            case "finished":
                self._view.stage("report")
            case _:
                return


def status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the status as lines for a terminal."""
    up = found["coordinator"]
    yield f"{found['consortium']}: plan {found['plan_sha256']}"
    if found["lab"]:
        yield "LAB ROSTER: no privacy guarantee"
    if up is None:
        yield "coordinator: not running"
    else:
        health = "answers" if up["healthy"] else "does not answer"
        yield f"coordinator: process {up['pid']}, SuperLink on port {up['port']} {health}"
    for job in found["jobs"]:
        yield f"job {job['job']}: {job['state']}, round {job['round']} of {job['rounds']} durable"
        yield f"  run  {job['run']}"
    for site in found["sites"]:
        head = site["ledger_head"] or "-"
        yield f"  {site['name']:<16} {site['connection']:<12} {site['state']:<20} head {head[:20]}"
