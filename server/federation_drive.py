"""One job's rounds on a Grid: what the engine needs, from the signed agreement alone."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from ..core.agreement_files import ROSTER_ENVELOPE
from ..core.codec import codec
from ..core.digest import digest_of
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..core.roster import Roster
from ..core.signing import public_from_fingerprint
from ..data.public import PublicSet
from ..privacy.accountant import epsilon_of
from ..privacy.derive import schedule
from ..strategies.catalog import strategy_for
from .admission import Admission, Member
from .coordinator import Coordinator, load_coordinator
from .coordinator_state import Job
from .drive import Drive
from .events import EventLog, all_events, release_event
from .federation_heads import keep_roster, write_heads
from .grid_post import GridPost
from .models_out import write_vector_file, write_whole_model
from .opening import Opening, mechanisms, opening
from .public_file import read_public
from .run_folder import load_stage, save_stage
from .store import Release, Store
from .supervise import STAGE
from .survey_result import fitted_of
from .task import OnEvent, Task

POLL_S = 0.1
AT_ONCE = 2
"""Replies that the Grid may hold in memory: sites may send what they like until it is judged."""


def federation_identity(plan: Plan, roster: Roster) -> str:
    """Return what a resumed run must share with its beginning.

    The plan, and under a lab roster the seed of its noise. A new roster may go on: keys are
    rotated and members sign it, while the plan stays the same.
    """
    from dataclasses import asdict

    seeded = asdict(plan.simulation) if roster.lab and plan.simulation else None
    return digest_of("collegium/federation/1", {"plan": plan.agreement(), "simulation": seeded})


def open_store(folder: Path, plan: Plan, roster: Roster) -> Store:
    """Return the run's store; raises ``OutputExists`` when it holds another plan's run."""
    return Store(
        folder / "rounds",
        plan_digest=federation_identity(plan, roster),
        updates=folder / "updates",
    )


def drive_job(grid: Grid, job: Job, events: EventLog, *, run_id: int) -> None:
    """Run all rounds that are not durable yet, ask for the reports, write what was found.

    A job whose last stage is durable is left as it is. Raises what the engine and the checks of
    the coordinator's folder raise.
    """
    if load_stage(job.run, STAGE) is not None:
        events.write("finished", run_id=run_id)
        return
    coordinator = load_coordinator(job.home)
    plan, roster = coordinator.plan, coordinator.roster
    keep_roster(job.run, (coordinator.home.agreement / ROSTER_ENVELOPE).read_bytes())
    opened, public = opening(plan), read_public(job.run)
    specs = mechanisms(plan, opened.layout)
    with closing(open_store(job.run, plan, roster)) as store:
        history = store.history()
        _tell_history(job.run, events, history)
        events.write(
            "started", run_id=run_id, job=store.job, rounds=plan.rounds.count, done=len(history)
        )
        work = _task(coordinator, opened, specs, store=store, public=public, events=events)
        drive = Drive(GridPost(grid, at_once=AT_ONCE), work)
        vector = drive.run()
        reports = drive.reports(vector)
        _write_out(job.run, opened, store, vector=vector, reports=reports, public=public)
    events.write("finished", run_id=run_id)


def _task(
    coordinator: Coordinator,
    opened: Opening,
    specs: Mapping[str, MechanismSpec],
    *,
    store: Store,
    public: PublicSet | None,
    events: EventLog,
) -> Task:
    plan = coordinator.plan
    members = members_of(plan, coordinator.roster, specs)
    return Task(
        plan=plan,
        layout=opened.layout,
        fitted=opened.fitted,
        opened=opened.vector,
        members=members,
        strategy=strategy_for(plan),
        admission=Admission(
            layout=opened.layout,
            codec=codec(plan.codec.name),
            members=members,
            learning_rate=plan.rounds.local_learning_rate,
        ),
        store=store,
        key=coordinator.key,
        evaluate=lambda vector: opened.measure(vector, public),
        epsilon=planned_epsilon(plan, specs),
        on_round=lambda release: events.write("round", **release_event(release)),
        on_event=_teller(events),
        poll_s=POLL_S,
    )


def _teller(events: EventLog) -> OnEvent:
    def tell(kind: str, **fields: Any) -> None:
        if kind not in ("round", "stopped"):  # told in full by on_round, and where errors are
            events.write(kind, **fields)

    return tell


def members_of(plan: Plan, roster: Roster, specs: Mapping[str, MechanismSpec]) -> dict[str, Member]:
    """Return the plan's sites with the keys of the signed roster."""
    return {
        site.name: Member(
            public_key=public_from_fingerprint(roster.site(site.name).public_key),
            spec=specs[site.name],
            public_records=site.public_records,
            weight=site.fold_weight,
        )
        for site in plan.sites
    }


def planned_epsilon(
    plan: Plan, specs: Mapping[str, MechanismSpec]
) -> Callable[[int], dict[str, float]]:
    """Return each site's epsilon after a number of rounds, from the plan's schedule alone.

    No ledger leaves its site, so a site that sat a round out is charged here as if it had not.
    """

    def spent(rounds: int) -> dict[str, float]:
        if not plan.privacy.enabled:
            return {}
        return {
            site.name: epsilon_of(
                schedule(plan, site, specs[site.name], rounds), plan.privacy.delta
            )
            for site in plan.sites
        }

    return spent


def _tell_history(folder: Path, events: EventLog, history: list[Release]) -> None:
    """Tell the durable rounds of which a crash kept the news."""
    told = {event["round"] for event in all_events(folder) if event["kind"] == "round"}
    for release in history:
        if release.round not in told:
            events.write("round", **release_event(release))


def _write_out(
    folder: Path,
    opened: Opening,
    store: Store,
    *,
    vector: Vector,
    reports: dict[str, dict[str, float]],
    public: PublicSet | None,
) -> None:
    """Write the released model, the heads, and last the stage that says all is durable."""
    found: dict[str, Any] = {
        "job": store.job,
        "reports": reports,
        "metrics": opened.measure(vector, public),
        "open_model": opened.measure_open_model(public),
        "model_sha256": write_vector_file(folder, vector, opened.whole),
        "global_bytes": write_whole_model(folder, opened.load(vector)),
        "heads": write_heads(folder, store.history()),
        **fitted_of(store),
        # Linux counts in KiB; this process alone: Flower's two and ServerApps before a crash not
        "serverapp_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    save_stage(folder, STAGE, found)
