"""``audit``: what a run directory, or one site's evidence, says about the running mechanism."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..client.evidence import FILE as EVIDENCE
from ..client.evidence import read_evidence
from ..core.digest import file_digest
from ..core.errors import GateFailed, InvalidInput, MissingInput
from ..core.files import write_atomic
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..core.signing import load_private
from ..core.site_file import SiteFile
from ..models.adapters import read_vector
from ..models.fitted import build_for, layouts
from ..privacy.conformance import (
    HONEST_SOFTWARE,
    SIGNIFICANCE,
    Finding,
    judge,
    summary,
    threshold,
    unexercised,
)
from ..privacy.conformance_insertion import SENSITIVITY
from ..privacy.conformance_records import Attempt, Key
from ..privacy.conformance_statistics import deterministic_findings, statistical_findings
from ..privacy.ledger import LedgerEntry, open_readonly, read_rows, verify_chain
from ..privacy.ledger_state import State
from ..privacy.noise import SeededNoise
from ..privacy.statement import NO_GUARANTEE
from ..server.models_out import VECTOR_FILE, read_vector_file
from ..server.result import FILE as RESULT
from .audit_build import (
    BUILD,
    canary_findings,
    committed_findings,
    release_findings,
    stream_finding,
)
from .audit_moving import moving_findings
from .audit_surveys import survey_findings
from .consortium import KEYS
from .records import simulation_seed
from .seeds import holds_seeds
from .workspace import load_stage, run_identity

SCHEMA = 1
FILE, MEMBERS = "audit.json", "membership.json"

_CUSTOM = "the run's model or sites were objects that the plan does not describe"


def audit_run(folder: Path, *, canaries: int = 0) -> dict[str, Any]:
    """Return the audit of a simulated run and write it to ``folder/audit.json``.

    The file holds statistics of the sites' records: only its owner may read it, and only the
    verdicts that ``server.privacy_page`` extracts for the privacy statement are told to others.
    How well real members are told from others is returned under ``membership`` and lies in
    ``folder/sites``.
    ``canaries`` > 0 adds a charged run with so many canaries on a shadow copy of one site.
    Raises ``MissingInput`` without evidence and ``InvalidInput`` for a broken run.
    """
    _require_here(folder)
    plan, custom = _plan_of(folder)
    sites = _evidence_of(folder, plan)
    entries = {site.name: _ledger_entries(folder, site.name) for site in plan.sites}
    commits = {name: _commits(rows) for name, rows in entries.items()}
    found = statistical_findings(sites)
    found += deterministic_findings(
        sites,
        learning_rate=plan.rounds.local_learning_rate,
        charged={name: _reserves(rows) for name, rows in entries.items()},
        sent={name: set(own) for name, own in commits.items()},
    )
    found += committed_findings(folder, sites, commits)
    found += survey_findings(plan, folder, entries, custom=custom)
    if custom:
        found.append(unexercised(SENSITIVITY, BUILD, _CUSTOM))
    else:
        spec = next(attempt.spec for attempts in sites.values() for attempt in attempts)
        found += canary_findings(plan, spec, _vector(folder, plan), seed=simulation_seed(plan))
        found += release_findings(plan, folder)
        found += moving_findings(plan, sites, layouts(build_for(plan), plan)[0])
    found.append(stream_finding(plan, SeededNoise(simulation_seed(plan))))
    values = _values(judge(found), source=str(folder), simulated=True)
    model = folder / VECTOR_FILE
    values["model_sha256"] = file_digest(model) if model.is_file() else None
    values["leakage"] = None
    if canaries:
        from .audit_leakage import canary_run

        values["leakage"] = canary_run(folder, plan, canaries, custom=custom)
    values["passed"] = values["passed"] and not _leaks(values["leakage"])
    _write(folder / FILE, values)
    return values | {"membership": None if custom else _membership(folder, plan)}


def _membership(folder: Path, plan: Plan) -> dict[str, Any] | None:
    """Keep the scores of real members at the sites: not even verdicts on them are told."""
    if not (folder / RESULT).is_file():
        return None
    from .audit_leakage import membership

    found = membership(folder, plan)
    _write(folder / "sites" / MEMBERS, found)
    return found


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """Write statistics that depend on records: for the owner alone."""
    text = json.dumps(values, indent=1, allow_nan=False)
    write_atomic(path, text.encode() + b"\n", mode=0o600)


def audit_site(site_file: Path) -> dict[str, Any]:
    """Return the audit of a real site from the evidence that it keeps; writes nothing.

    The evidence lies in the site's state folder, or beside its ledger.

    Noise, batches and what the ledger was charged are tested; clipping needs the plan's model,
    which the site file does not name. Raises ``MissingInput`` without evidence.
    """
    site = SiteFile.load(site_file)
    path = site.state_path / EVIDENCE
    if not path.is_file():
        path = site.ledger_path.parent / EVIDENCE
    attempts = tuple(read_evidence(path).values())
    if not attempts:
        raise _no_evidence(path.parent)
    rows = _read_ledger(site.ledger_path, None)  # the site file does not name the site's key
    name = site.site.name
    sites = {name: attempts}
    found = statistical_findings(sites)
    found += deterministic_findings(
        sites,
        learning_rate=None,
        charged={name: _reserves(rows)},
        sent={name: set(_commits(rows))},
    )
    why = "the site file names no model; audit the run's directory for this"
    found.append(unexercised(SENSITIVITY, name, why))
    return _values(judge(found), source=str(site_file), simulated=site.site.mode == "simulation")


def require_passed(values: Mapping[str, Any]) -> None:
    """Raise ``GateFailed`` when a conformance test failed or the strict leakage bound did."""
    failed = [f"{row['name']} ({row['site']})" for row in values["tests"] if _failed(row)]
    if failed:
        more = f" and {len(failed) - 4} more" if len(failed) > 4 else ""
        raise GateFailed(
            f"the audit failed: {', '.join(failed[:4])}{more}",
            why="what ran is not the mechanism that the ledger was charged for",
            cure="release nothing of this run; mend the build, then run again",
        )
    if _leaks(values.get("leakage")):
        raise GateFailed(
            "the canaries leak more than the claimed epsilon",
            why="a strict lower bound at 95 % confidence contradicts the claim",
            cure="release nothing of this run; find what the mechanism does not cover",
        )


def _failed(row: Mapping[str, Any]) -> bool:
    return row["verdict"] == "failed"


def _leaks(leakage: Mapping[str, Any] | None) -> bool:
    return bool(leakage) and not leakage["passed"]


def _values(findings: Sequence[Finding], *, source: str, simulated: bool) -> dict[str, Any]:
    counts = summary(findings)
    return {
        "schema": SCHEMA,
        "source": source,
        "simulated": simulated,
        "guarantee": NO_GUARANTEE if simulated else None,
        "attests": HONEST_SOFTWARE,
        "significance": SIGNIFICANCE,
        "threshold": threshold(findings),
        "p_values": sum(finding.count for finding in findings),
        "counts": dict(counts),
        "passed": counts["failed"] == 0,
        "tests": [finding.to_dict() for finding in findings],
    }


def _require_here(folder: Path) -> None:
    """Raise ``MissingInput`` for a real run: what is audited never leaves its sites."""
    job = load_stage(folder, "job") is not None or any((folder / "ledgers").glob("*.json"))
    if job and not (folder / "sites").is_dir():
        raise MissingInput(
            f"{folder} is a real run, and holds no evidence",
            why="evidence and ledgers stay at the sites; a coordinator has signed heads alone",
            cure="at each site `collegium audit --site SITE.toml`; here `collegium ledger verify`",
        )


def _plan_of(folder: Path) -> tuple[Plan, bool]:
    """Return a run's plan and whether its objects were passed in from Python."""
    if holds_seeds(folder):
        raise MissingInput(
            f"{folder} holds several runs",
            why="each seed is a run of its own",
            cure=f"name one of them, like {next((folder / 'seeds').iterdir(), folder)}",
        )
    if not (folder / "plan.toml").is_file():
        raise MissingInput(
            f"there is no run in {folder}",
            why="it holds no plan.toml",
            cure="name the folder that `simulate` or `demo` wrote with --out",
        )
    plan = Plan.load(folder / "plan.toml")
    begun = load_stage(folder, "begun") or {}
    identities = {run_identity(plan, custom=custom): custom for custom in (False, True)}
    identities[run_identity(plan, custom=False, processes=True)] = False
    if begun.get("identity") not in identities:
        raise InvalidInput(
            f"{folder / 'plan.toml'} is not the plan of this run",
            why="the run began under another one",
            cure="restore the file",
        )
    return plan, identities[begun["identity"]]


def _evidence_of(folder: Path, plan: Plan) -> dict[str, tuple[Attempt, ...]]:
    """Return every site's attempts; a site that never trained has none."""
    found: dict[str, tuple[Attempt, ...]] = {}
    for site in plan.sites:
        path = folder / "sites" / site.name / EVIDENCE
        found[site.name] = tuple(read_evidence(path).values()) if path.is_file() else ()
    if not plan.privacy.enabled:
        raise MissingInput(
            f"{folder} was run without privacy",
            why="without noise there is nothing to audit",
            cure="run the plan with [privacy] enabled = true and without --no-privacy",
        )
    if not any(found.values()):
        raise _no_evidence(folder)
    return found


def _no_evidence(folder: Path) -> MissingInput:
    return MissingInput(
        f"there is no evidence in {folder}",
        why="it was made by a version that kept none, or no round was trained yet",
        cure="run the plan again with this version",
    )


def _ledger_entries(folder: Path, name: str) -> list[LedgerEntry]:
    path = folder / "ledgers" / f"{name}.sqlite"
    if not path.is_file():
        raise InvalidInput(
            f"the ledger of '{name}' is missing",
            why="a private run charges one ledger per site",
            cure="restore the run's folder",
        )
    key = folder / KEYS / f"{name}.pem"
    return _read_ledger(path, load_private(key).public_key() if key.is_file() else None)


def _read_ledger(path: Path, key: Ed25519PublicKey | None) -> list[LedgerEntry]:
    """Return entries whose chain, signatures (with ``key``) and order of events hold."""
    with open_readonly(path) as connection:
        return State(verify_chain(read_rows(connection), key)).entries


def _reserves(rows: Sequence[LedgerEntry]) -> dict[Key, MechanismSpec]:
    return {
        (row.job, row.round, row.attempt): row.spec
        for row in rows
        if row.kind == "reserve" and row.spec is not None
    }


def _commits(rows: Sequence[LedgerEntry]) -> dict[Key, str]:
    """Return digests of the updates that left; round 0 is the private evaluation, no training."""
    return {
        (row.job, row.round, row.attempt): row.update_sha256
        for row in rows
        if row.kind == "commit" and row.round > 0
    }


def _vector(folder: Path, plan: Plan) -> Vector:
    """Return the released vector, or the open model's while there is none."""
    if (folder / VECTOR_FILE).is_file():
        return read_vector_file(folder)[0]
    model = build_for(plan)
    return read_vector(model, layouts(model, plan)[2].names)
