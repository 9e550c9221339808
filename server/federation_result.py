"""result.json of a real run: figures from the durable rounds and the signed plan, nothing more."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..core.errors import InvalidInput, MissingInput
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..models import registry
from ..privacy.derive import schedule
from ..privacy.statement import Circumstances, SiteAccount, asked_once, released, statement
from .coordinator import Coordinator
from .events import Event, all_events, release_of
from .result import SCHEMA, evaluation_of, history_of, sites_of, versions
from .run_folder import load_stage
from .store import Release
from .supervise import STAGE
from .survey_result import fitted_entries

DERIVED_FROM = (
    "the signed plan's schedule: every site is charged every round, asked once each; a site's own "
    "ledger has the last word, and may say less (it sat a round out) or more (it was asked again "
    "after a restore)"
)
ACROSS_RUNS = (
    "this run alone, from the plan's schedule; what a site has spent on all runs stands in its own "
    "ledger, which stays there"
)
NO_HEAD = "not told: no update of this site was admitted"


def federation_values(
    folder: Path, coordinator: Coordinator, specs: Mapping[str, MechanismSpec]
) -> dict[str, Any]:
    """Return the content of result.json; raises ``MissingInput`` before all rounds are durable.

    A lab run has seeded noise, so it is 'simulated' whatever processes it ran in.
    """
    found = load_stage(folder, STAGE)
    if found is None:
        raise MissingInput(
            f"the run in {folder} is not finished",
            why="not all its rounds are durable",
            cure="`collegium coordinator run DIR --out RUN --resume` goes on",
        )
    plan, lab = coordinator.plan, coordinator.roster.lab
    history = durable_rounds(folder)
    privacy = stated(plan, specs, found["heads"], lab=lab)
    metrics, open_metrics = found["metrics"], found["open_model"]
    return {
        "schema": SCHEMA,
        "simulated": lab,
        "custom": False,
        "consortium": plan.consortium,
        "dataset": plan.simulation.dataset if lab and plan.simulation else None,
        "model": plan.model.name,
        "task": plan.model.task,
        "plan_sha256": plan.digest,
        "roster_sha256": coordinator.roster.digest,
        "job": found["job"],
        "seeds": [plan.simulation.seed] if lab and plan.simulation else [],
        "rounds": plan.rounds.count,
        "versions": versions(),
        "epsilon_budget": plan.privacy.epsilon if privacy else None,
        "sites": sites_of(plan, privacy, found["reports"]),
        "epsilon_max": privacy["epsilon_max"] if privacy else None,
        "epsilon_if_shared": privacy["epsilon_if_shared"] if privacy else None,
        "privacy": privacy,
        "global_bytes": found["global_bytes"],
        "global": {"accuracy": metrics.get("accuracy"), "metrics": metrics},
        "open_model": {"accuracy": open_metrics.get("accuracy"), "metrics": open_metrics}
        if open_metrics
        else None,
        **fitted_entries(plan, found),
        "evaluation": evaluation_of(plan, found["reports"]),
        "history": history_of(history),
        "model_sha256": found["model_sha256"],
        "local": None,
        "pooled": None,
        "edge": None,
        "seconds": wall_seconds(all_events(folder)),
        "peak_rss_bytes": None,  # of a tree of processes, which nobody here sees whole
        "serverapp_peak_rss_bytes": found.get("serverapp_peak_rss_bytes"),
    }


def stated(
    plan: Plan, specs: Mapping[str, MechanismSpec], heads: Mapping[str, str], *, lab: bool
) -> dict[str, Any] | None:
    """Return the privacy statement of a real run, None when privacy is off.

    A coordinator has no ledgers: each figure is what the signed plan lets a site spend, and a
    site's total over all runs is null, because it is the site's own.
    """
    if not plan.privacy.enabled:
        return None
    accounts = {
        site.name: _account(plan, site.name, specs[site.name], heads.get(site.name) or NO_HEAD)
        for site in plan.sites
    }
    told = Circumstances(
        rounds=plan.rounds.count,
        released=released(plan),
        once=asked_once(plan),
        base_model=plan.model.name,
        base_model_trained_on=registry.describe(plan.model).trained_on,
        evaluation=plan.evaluation.origin,
        reproducible_noise=lab,
        device_noise=None,  # each site draws its own, and tells nobody by which generator
    )
    found = statement(accounts, told)
    for entry in found["epsilon_by_site"].values():
        entry |= {"epsilon_total": None, "epsilon_total_fixed": None, "runs_on_this_asset": None}
    found["accountant"]["across_runs"] = ACROSS_RUNS
    return found | {"derived_from": DERIVED_FROM}


def _account(plan: Plan, name: str, spec: MechanismSpec, head: str) -> SiteAccount:
    spend = schedule(plan, plan.site(name), spec, plan.rounds.count)
    return SiteAccount(spec=spec, run=spend, jobs={"this run": spend}, ledger_head=head)


def durable_rounds(folder: Path) -> list[Release]:
    """Return the durable rounds of a run, oldest first, while its ServerApp may be at work.

    Raises ``InvalidInput`` when their file is damaged.
    """
    path = folder / "rounds" / "rounds.sqlite"
    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        try:
            rows = database.execute("SELECT body FROM rounds ORDER BY round").fetchall()
            return [release_of(json.loads(body)) for (body,) in rows]
        except sqlite3.OperationalError:
            return []  # it is being made
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError):
            raise InvalidInput(
                f"the rounds in {path} cannot be read",
                why="the file is damaged",
                cure="restore the run's folder from a backup, then --resume",
            ) from None


def wall_seconds(events: Sequence[Event]) -> float:
    """Return the seconds from a job's first start to its end, pauses between Flower runs too."""
    starts = [event["at"] for event in events if event["kind"] == "started"]
    ends = [event["at"] for event in events if event["kind"] in ("finished", "round", "stopped")]
    return max(ends) - min(starts) if starts and ends else 0.0
