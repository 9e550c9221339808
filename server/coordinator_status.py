"""``coordinator status``: what runs, how far each job is, where each site stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from ..core.errors import Interrupted, InvalidInput
from ..core.plan import Plan
from ._flwr_link import Control
from .coordinator import LOOPBACK, Coordinator
from .coordinator_flower import is_healthy
from .coordinator_state import Running, find_running, holder_of, jobs
from .events import Event, all_events
from .federation_result import durable_rounds
from .run_folder import is_finished, load_stage
from .supervise import STAGE


def status_of(coordinator: Coordinator, state: Path | None = None) -> dict[str, Any]:
    """Return the status as plain values; nothing is started or changed."""
    home = coordinator.home
    where = (state or home.state).absolute()
    up = find_running(where)
    known = [_job(job.job, job.run) for job in jobs(where)]
    last = all_events(Path(known[-1]["run"])) if known else []
    heads = (load_stage(Path(known[-1]["run"]), STAGE) or {}).get("heads", {}) if known else {}
    connected = _connections(coordinator, up)
    return {
        "consortium": coordinator.plan.consortium,
        "plan_sha256": coordinator.plan.digest,
        "lab": coordinator.roster.lab,
        "warnings": list(coordinator.warnings),
        "coordinator": None
        if up is None
        else {"pid": up.pid, "port": up.port, "healthy": is_healthy(home.ca, up.port)},
        "jobs": known,
        "sites": [
            {
                "name": site.name,
                "connection": connected.get(site.name, "not known"),
                "state": site_state(last, site.name),
                "ledger_head": heads.get(site.name),
            }
            for site in coordinator.plan.sites
        ],
    }


def site_state(events: Sequence[Event], site: str) -> str:
    """Return where a site stands in the newest round: absent, waiting, training, done, ..."""
    state = "absent"
    for event in events:
        match event["kind"]:
            case "seen" if event["site"] == site:
                state = "waiting"
            case "gone" if event["site"] == site:
                state = "absent"
            case "invited" if site in event["sites"]:
                state = "training"
            case "answered" if event["site"] == site:
                state = "done" if event["code"] == "ok" else f"refused ({event['code']})"
            case "late" if event["site"] == site:
                state = "late"
            case _:
                continue
    return state


def _job(job: str, run: Path) -> dict[str, Any]:
    try:
        history, state = durable_rounds(run), _job_state(run)
    except InvalidInput:  # one damaged run says nothing about the others
        history, state = [], "its rounds cannot be read"
    return {
        "job": job,
        "run": str(run),
        "state": state,
        "round": history[-1].round if history else 0,
        "rounds": _planned_rounds(run),
    }


def _job_state(run: Path) -> str:
    if is_finished(run):
        return "finished"
    if holder_of(run) is not None:
        return "running"
    return "open, nothing at work" if run.is_dir() else "its folder is gone"


def _planned_rounds(run: Path) -> int | None:
    path = run / "plan.toml"
    return Plan.load(path).rounds.count if path.is_file() else None


def _connections(coordinator: Coordinator, up: Running | None) -> dict[str, str]:
    """Return Flower's word for each site's SuperNode, found by its registered key."""
    if up is None:
        return {}
    try:
        with Control(f"{LOOPBACK}:{up.port}", coordinator.home.ca) as control:
            words = {_key(node.public_key): node.status for node in control.nodes()}
    except Interrupted:
        return {}
    return {
        site.name: words.get(_key(site.supernode_key.encode()), "not registered")
        for site in coordinator.roster.sites
    }


def _key(text: bytes) -> bytes:
    """Return a public key's own bytes, whether it is written as OpenSSH or as PEM text."""
    load = load_pem_public_key if text.startswith(b"-----") else load_ssh_public_key
    try:
        return load(text).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return text
