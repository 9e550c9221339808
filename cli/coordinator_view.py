"""What a person sees of a real run: the same live view as a simulation's, fed from its events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..server.coordinator import Coordinator
    from ..server.coordinator_run import RunRequest
    from ..server.events import Event


def show_run(
    coordinator: Coordinator, asked: RunRequest, *, as_json: bool, verbose: bool
) -> dict[str, Any]:
    """Run a job with one live view, print its summary or result.json; return the result."""
    from rich.console import Console

    from ..server.coordinator_run import run_federation
    from ..server.result import FILE
    from ..simulations.feed import Feed
    from .running import logging_on
    from .summary import show
    from .view import view_for

    console = Console(highlight=False, markup=False)
    view = view_for(console, silent=as_json)
    view.stages(("rounds", "report"))
    feed = Feed(coordinator.plan, view, asked.out)

    def hear(event: Event) -> None:
        feed.hear(event)
        if event["kind"] == "finished":
            view.stage("report")

    with logging_on(console, verbose=verbose, stderr=as_json), view:
        values = run_federation(
            coordinator,
            asked,
            on_event=hear,
            on_flower=view.note,
            on_job=lambda _: feed.begin(),
        )
    if as_json:
        click.echo((asked.out / FILE).read_text(encoding="utf-8"), nl=False)
    else:
        show(console, values, asked.out)
    return values


def status_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the status as lines for a terminal: what a site has sent moves no cursor in it."""
    from ..server.words import clean

    yield from map(clean, _status_lines(found))


def _status_lines(found: Mapping[str, Any]) -> Iterator[str]:
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
