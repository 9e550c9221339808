"""``up``: the whole plan as a real federation of processes on this machine, under a lab roster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from ..core.errors import MissingInput
from ..core.logs import logging_to
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..core.signing import load_private
from ..models import registry
from ..privacy.ledger import Ledger
from ..server._flwr_link import Control
from ..server.coordinator_run import prepare_job
from ..server.federation_drive import open_store
from ..server.models_out import read_vector_file
from ..server.opening import mechanisms, opening
from ..server.result import read_result, write_result
from ..server.run_folder import is_finished, load_stage, workspace
from ..server.supervise import STAGE, Pursuit
from .consortium import KEYS
from .feed import Feed
from .listener import Listener
from .processes import Lab, make_lab, running, site_file
from .reading import require_fit
from .records import simulation_of, split_records
from .resources import ResourceMeter
from .run import RunResult, resumable_disk
from .stages import Rounds, Stages, one_thread
from .stated import account, stated_by
from .workspace import run_identity


def up(
    plan: Plan, *, out: Path, resume: bool = False, listener: Listener | None = None
) -> RunResult:
    """Run the plan as processes and return its result; the folder is that of ``simulate``.

    Everything runs under a lab roster with the plan's seeded noise, so it gives the model that
    ``simulate`` gives, and no privacy guarantee. All processes end with this one. Raises as
    ``simulate``, and ``NotAvailable`` where Flower's programs are not installed.
    """
    heard, folder = listener or Listener(), out.absolute()
    simulation_of(plan)  # before anything is written
    identity = run_identity(plan, custom=False, processes=True)
    with (
        workspace(folder, plan, identity=identity, resume=resume),
        logging_to(folder),
        resumable_disk(folder),
    ):
        if not (resume and is_finished(folder)):
            with ResourceMeter() as meter:
                values = _run(plan, folder, heard)
                values["seconds"], values["peak_rss_bytes"] = meter.seconds, meter.peak_rss_bytes
            write_result(folder, values)
        result = RunResult(
            folder=out,
            values=read_result(folder),
            factory=lambda: registry.build(plan.model),
            plan=plan,
        )
        heard.stage("report")
        result.report(folder / "report.html")
    return result


def _run(plan: Plan, folder: Path, heard: Listener) -> dict[str, Any]:
    one_thread()
    opening(plan)  # a model that is not here is said before the first record is read
    heard.stage("data")
    records = split_records(plan)
    require_fit(plan, records)
    stages = Stages(
        plan=plan, folder=folder, factory=lambda: registry.build(plan.model), heard=heard
    )
    stages.require_edge(records)
    lab = make_lab(plan, folder, records)
    job = prepare_job(lab.coordinator, folder, lab.coordinator.home.state)
    if load_stage(folder, STAGE) is None:
        drive(plan, lab, job.job, folder, heard)
    specs = mechanisms(plan, opening(plan).layout)
    rounds = _rounds(plan, lab, folder, job.job, specs)
    values = stages.values(records, rounds) | {"job": job.job}
    values |= stages.baselines(records, specs)
    values["edge"] = stages.edge(values, records, rounds.vector)
    return values


def drive(plan: Plan, lab: Lab, job: str, folder: Path, heard: Listener) -> None:
    """Run every round that is not durable yet through real processes."""
    feed = Feed(plan, heard, folder)
    feed.begin()
    with running(lab, say=heard.note) as processes:

        def sleep(seconds: float) -> None:
            processes.tick()
            time.sleep(seconds)

        with Control(processes.service.address, lab.coordinator.home.ca) as control:
            pursuit = Pursuit(
                flower=control,
                app=lab.coordinator.home.app.read_bytes(),
                job=job,
                folder=folder,
                supervise=True,
                on_event=feed.hear,
                on_flower=heard.note,
                sleep=sleep,
            )
            try:
                pursuit.follow()
            except BaseException:
                pursuit.abandon()
                raise


def _rounds(
    plan: Plan, lab: Lab, folder: Path, job: str, specs: Mapping[str, MechanismSpec]
) -> Rounds:
    """Return what the processes left: the released vector, reports, rounds, ledgers' accounts."""
    found = load_stage(folder, STAGE)
    if found is None:
        raise MissingInput(f"the rounds in {folder} are not durable", cure="--resume")
    with closing(open_store(folder, plan, lab.coordinator.roster)) as store:
        history = store.history()
    return Rounds(
        vector=read_vector_file(folder)[0],
        model_sha256=found["model_sha256"],
        reports=found["reports"],
        history=history,
        fitted=found,
        privacy=_privacy(plan, lab, folder, job, specs),
    )


def _privacy(
    plan: Plan, lab: Lab, folder: Path, job: str, specs: Mapping[str, MechanismSpec]
) -> dict[str, Any] | None:
    """Return the statement from the sites' own ledgers, which are on this machine, too."""
    if not plan.privacy.enabled:
        return None
    with ExitStack() as stack:
        accounts = {
            name: account(stack.enter_context(closing(_ledger(lab, folder, name))), spec, job)
            for name, spec in specs.items()
        }
        return stated_by(
            plan,
            accounts,
            reproducible_noise=lab.coordinator.roster.lab,
            device_noise=False,  # the lab's site files name the CPU
        )


def _ledger(lab: Lab, folder: Path, site: str) -> Ledger:
    words = site_file(lab, site)
    key = load_private(folder / KEYS / f"{site}.pem")
    return Ledger(
        words.ledger_path, words.data.asset, words.policy.budget, key, anchor=words.anchor_path
    )
