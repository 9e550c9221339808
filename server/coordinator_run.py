"""``coordinator run``: a run folder, a job, its Flower runs, and the result at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import NotAvailable, OutputExists
from ..data.public import PublicSet
from ..data.public_file import load_public
from ._flwr_link import Control
from .coordinator import LOOPBACK, Coordinator
from .coordinator_state import Job, find_running, write_job
from .events import Event
from .federation_drive import federation_identity, open_store
from .federation_result import durable_rounds, federation_values
from .opening import mechanisms, opening
from .privacy_page import write_privacy_page
from .public_file import read_public, write_public
from .report import write_report
from .result import read_result, write_result
from .resumable import resumable
from .run_folder import is_finished, load_stage, save_stage, workspace
from .supervise import STAGE, Patience, Pursuit

JOB_STAGE = "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What was asked for: where, and how."""

    out: Path
    state: Path
    resume: bool = False
    supervise: bool = False
    public: Path | None = None


def run_federation(
    coordinator: Coordinator,
    asked: RunRequest,
    *,
    on_event: Callable[[Event], None],
    on_flower: Callable[[str], None],
    on_job: Callable[[str], None] | None = None,
    patience: Patience | None = None,
) -> dict[str, Any]:
    """Run or resume a job on the coordinator that is up; return what result.json holds.

    Raises ``OutputExists`` (the folder holds another run), ``NotAvailable`` (no coordinator is
    up), ``Interrupted`` (resumable), ``Refused`` and whatever else stopped the ServerApp.
    """
    folder = asked.out.absolute()
    identity = federation_identity(coordinator.plan, coordinator.roster)
    with workspace(folder, coordinator.plan, identity=identity, resume=asked.resume):
        finished = is_finished(folder)
        public = load_public(asked.public) if asked.public and not finished else None
        with resumable(folder):
            if public is not None:
                take_public(folder, public)
            if not finished:
                job = prepare_job(coordinator, folder, asked.state)
                if on_job:
                    on_job(job.job)
                if load_stage(folder, STAGE) is None:
                    _pursue(
                        coordinator,
                        asked,
                        job,
                        on_event=on_event,
                        on_flower=on_flower,
                        patience=patience or Patience(),
                    )
                finish(coordinator, folder)
            write_pages(folder)
        return read_result(folder)


def prepare_job(coordinator: Coordinator, folder: Path, state: Path) -> Job:
    """Return the run's job, the same one after every restart, known to the ServerApps."""
    known = load_stage(folder, JOB_STAGE)
    if known is None:
        # before the first submission, so that no ServerApp has the store open
        with closing(open_store(folder, coordinator.plan, coordinator.roster)) as store:
            known = {"job": store.job}
        save_stage(folder, JOB_STAGE, known)
    job = Job(job=known["job"], run=folder, home=coordinator.home.folder)
    write_job(state, job)
    return job


def finish(coordinator: Coordinator, folder: Path) -> None:
    """Write result.json, privacy.json with its page, and report.html."""
    opened = opening(coordinator.plan)
    specs = mechanisms(coordinator.plan, opened.layout)
    write_result(folder, federation_values(folder, coordinator, specs))
    write_pages(folder)


def write_pages(folder: Path) -> None:
    """Write the pages of a finished run that lacks them; report.html, the last one, says so."""
    report = folder / "report.html"
    if not report.is_file():
        write_privacy_page(folder)
        write_report(folder, report)


def take_public(folder: Path, test: PublicSet) -> None:
    """Write the public set on which every round is measured; it stays the same for the run.

    Raises ``OutputExists`` for another one than the run's, and for a first one after a round.
    """
    begun = read_public(folder)
    if begun is None and not durable_rounds(folder):
        write_public(folder, test)
    elif begun is None or (begun.digest, begun.name) != (test.digest, test.name):
        raise OutputExists(
            f"the rounds in {folder} are measured on "
            + ("no public records" if begun is None else f"'{begun.name}' ({begun.digest[:19]})"),
            why="the metrics of a run are comparable on one set of records alone",
            cure="leave --public out: --resume goes on with what the run began with",
        )


def _pursue(
    coordinator: Coordinator,
    asked: RunRequest,
    job: Job,
    *,
    on_event: Callable[[Event], None],
    on_flower: Callable[[str], None],
    patience: Patience,
) -> None:
    up = find_running(asked.state)
    if up is None:
        raise NotAvailable(
            f"no coordinator runs on {asked.state}",
            why="a run needs its SuperLink and SuperExec",
            cure=f"`collegium coordinator start {coordinator.home.folder}` in another terminal",
        )
    with Control(f"{LOOPBACK}:{up.port}", coordinator.home.ca) as control:
        pursuit = Pursuit(
            flower=control,
            app=coordinator.home.app.read_bytes(),
            job=job.job,
            folder=job.run,
            supervise=asked.supervise,
            on_event=on_event,
            on_flower=on_flower,
            patience=patience,
        )
        try:
            pursuit.follow()
        except KeyboardInterrupt:
            pursuit.abandon()
            raise
