"""result.json: every figure of a run, written once; the report shows nothing that is not here."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from ..core.errors import GateFailed, InvalidInput, MissingInput
from ..core.files import write_atomic
from ..core.plan import Plan
from ..privacy.derive import COUNTS, evaluation_mechanism
from .store import Release

SCHEMA = 1
FILE = "result.json"
_PACKAGES = ("collegium", "flwr", "torch", "opacus", "dp-accounting", "onnxruntime", "numpy")


def versions() -> dict[str, str]:
    """Return the versions that this run was made with."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def history_of(releases: Sequence[Release]) -> list[dict[str, Any]]:
    """Return the ``history`` entries, one per durable round."""
    return [
        {
            "round": release.round,
            "model_sha256": release.model_sha256,
            "sites": list(release.sites),
            "refused": [{"site": site, "code": code} for site, code in release.refused],
            "late": list(release.late),
            "bytes_up": release.bytes_up,
            "bytes_down": release.bytes_down,
            "seconds": release.seconds,
            "epsilon": max(release.epsilon_by_site.values(), default=None),
            "metrics": release.metrics or None,
            "site_metrics": release.site_metrics or None,
        }
        for release in releases
    ]


def sites_of(
    plan: Plan,
    privacy: Mapping[str, Any] | None,
    reports: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Return the ``sites`` entries; epsilon is null when privacy is off.

    Noised counts become what may be said of them: an accuracy, cut to 0..1 (post-processing).
    """
    entries: list[dict[str, Any]] = []
    for site in plan.sites:
        spent = privacy["epsilon_by_site"][site.name] if privacy else None
        entries.append(
            {
                "name": site.name,
                "public_records": site.public_records,
                "epsilon": spent["epsilon"] if spent else None,
                "epsilon_total": spent["epsilon_total"] if spent else None,
                "delta": plan.privacy.delta if spent else None,
                "metrics": _metrics(plan, reports.get(site.name) or {}) or None,
            }
        )
    return entries


def evaluation_of(plan: Plan, reports: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the ``evaluation`` entry: where the sites' metrics come from, and the pooled one.

    ``accuracy`` is over all sites' noised counts together, null for public test parts and where
    the noise left nothing to divide by; ``noise_std`` is that of each site's each count.
    """
    mechanism = evaluation_mechanism(plan, plan.sites[0])
    private = plan.evaluation.origin == "private"
    counted = [told for told in reports.values() if private and set(told) == set(COUNTS)]
    pooled = {name: sum(told[name] for told in counted) for name in COUNTS}
    return {
        "origin": plan.evaluation.origin,
        "sites": sorted(reports),
        "accuracy": _accuracy(pooled) if counted else None,
        "noise_std": mechanism.noise_std if mechanism else None,
    }


def _metrics(plan: Plan, told: Mapping[str, float]) -> dict[str, float]:
    if plan.evaluation.origin == "public":
        return dict(told)
    if set(told) != set(COUNTS):
        return {}
    accuracy = _accuracy(told)
    return {} if accuracy is None else {"accuracy": accuracy}


def _accuracy(counts: Mapping[str, float]) -> float | None:
    if counts["records"] < 1:
        return None
    return min(1.0, max(0.0, counts["correct"] / counts["records"]))


def write_result(folder: Path, values: Mapping[str, Any]) -> None:
    """Write result.json atomically: it exists if and only if the run is finished."""
    text = json.dumps(values, indent=2, sort_keys=False, allow_nan=False)
    write_atomic(folder / FILE, text.encode() + b"\n")


def read_result(folder: Path) -> dict[str, Any]:
    """Return a finished run's result; raises ``MissingInput`` or ``InvalidInput``."""
    path = folder / FILE
    if not path.is_file():
        raise MissingInput(
            f"there is no finished run in {folder}",
            why=f"it holds no {FILE}",
            cure="name a run directory; an unfinished run goes on with --resume",
        )
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
        values = None
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise InvalidInput(
            f"{path} is not a result of this version",
            why=f"schema {SCHEMA} was expected",
            cure="run again with this version",
        )
    return values


def require_gate(values: Mapping[str, Any]) -> None:
    """Raise ``GateFailed`` unless every edge model of a result (one run or several) passed."""
    for run in values.get("runs") or [values]:
        edge = run["edge"]
        if reason := run.get("edge_reason"):
            raise GateFailed(
                "the edge model could not be made",
                why=reason,
                cure="mend that, then `collegium publish`; the global model itself is complete",
            )
        if edge and not edge["verified"]:
            raise GateFailed(
                f"the edge model did not pass its gate: {edge.get('reason') or 'not verified'}",
                why="agreement or accuracy is below the limits in the plan's [edge] table",
                cure="see the parity table in the report; the global model itself is complete",
            )


def combine(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one result whose figures are medians over several seeds; ``runs`` holds each."""
    merged: dict[str, Any] = _median([dict(run) for run in runs])
    merged["seeds"] = [seed for run in runs for seed in run["seeds"]]
    merged["seconds"] = max(run["seconds"] for run in runs)  # each counts from the process start
    merged["peak_rss_bytes"] = max(run["peak_rss_bytes"] for run in runs)
    merged["model_sha256"] = None
    merged["runs"] = [dict(run) for run in runs]
    return merged


def _median(values: Sequence[Any]) -> Any:
    """Return figures' medians; anything that is not the same figure everywhere stays the first."""
    first = values[0]
    if isinstance(first, bool) or any(type(value) is bool for value in values):
        return all(values) if isinstance(first, bool) else first
    if all(isinstance(value, int | float) for value in values):
        middle = median(values)
        return (
            int(middle) if all(isinstance(v, int) for v in values) and middle % 1 == 0 else middle
        )
    if all(isinstance(value, dict) for value in values):
        return {
            key: _median([value[key] for value in values])
            for key in first
            if all(key in value for value in values)
        }
    if all(isinstance(value, list) and len(value) == len(first) for value in values):
        return [_median(list(column)) for column in zip(*values, strict=True)]
    return first
