"""Compare the in-process Grid with Flower's Ray engine on the same apps, in fresh processes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from fresh import run_fresh
from simulation_apps import CNN_BATCH, CNN_STEPS, Case

HERE = Path(__file__).resolve().parent
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
FIGURES = (
    "seconds_per_round",
    "seconds_to_first_round",
    "cpu_seconds_per_round",
    "core_wait_seconds_per_round",
    "cpu_seconds",
    "peak_rss_bytes",
)
RATIOS = tuple(name for name in FIGURES if not name.startswith("core_wait"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured, and how often."""

    clients: tuple[int, ...]
    cnn_clients: int
    rounds: int
    repeats: int
    workers: int
    ray: bool


def measure(settings: Settings) -> dict[str, Any]:
    """Return every figure; the engines of a case take turns, so that they share the noise."""
    reason = _why_no_ray() if settings.ray else "switched off with --no-ray"
    cases = [Case(kind="empty", clients=n, rounds=settings.rounds) for n in settings.clients]
    if settings.cnn_clients:
        cases.append(Case(kind="cnn", clients=settings.cnn_clients, rounds=settings.rounds))
    return {
        "schema": 1,
        "machine": _machine(),
        "settings": {
            "rounds": settings.rounds,
            "repeats": settings.repeats,
            "workers": settings.workers,
            "cnn_steps": CNN_STEPS,
            "cnn_batch": CNN_BATCH,
        },
        "cases": [_case(case, settings, reason) for case in cases],
    }


def _case(case: Case, settings: Settings, no_ray: str | None) -> dict[str, Any]:
    names = ["local", *([] if no_ray else ["ray"])]
    if case.kind == "cnn":
        names += ["bare", "bare_processes"]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for repeat in range(settings.repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            runs[name].append(_run(name, case, settings.workers))
            _say(case, name, runs[name][-1])
    engines = {name: _summary(found) for name, found in runs.items()}
    return {
        "case": case.kind,
        "clients": case.clients,
        "parameters": case.parameters,
        "local": engines["local"],
        "ray": engines.get("ray"),
        "ray_missing": no_ray,
        "bare": engines.get("bare"),
        "bare_processes": engines.get("bare_processes"),
        "ray_over_local": _ratios(engines.get("ray"), engines["local"]),
    }


def _run(engine: str, case: Case, workers: int) -> dict[str, float]:
    """Run one engine in a fresh process and return its figures; nothing is left running."""
    scratch = Path(tempfile.mkdtemp(prefix="cg"))  # short: Ray puts sockets below it
    try:
        result = scratch / "result.json"
        words = [engine, case.kind, str(case.clients), str(case.rounds), str(workers)]
        tree = run_fresh(
            [
                str(HERE / "simulation_engine.py"),
                *words,
                *("--scratch", str(scratch), "--result", str(result)),
            ],
            log=scratch / "log.txt",
            env=QUIET,
        )
        if not result.is_file():
            raise RuntimeError(f"{' '.join(words)} failed ({tree.return_code}):\n{tree.output}")
        found = json.loads(result.read_bytes())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    ends, cpu, wait = found["ends"], found["cpu_s"], found["core_wait_s"]
    later = [after - before for before, after in pairwise(ends)]
    return {
        "seconds_per_round": median(later),
        "seconds_to_first_round": ends[0] - tree.started_at,
        "cpu_seconds_per_round": (cpu[-1] - cpu[0]) / len(later),
        "core_wait_seconds_per_round": (wait[-1] - wait[0]) / len(later),
        "cpu_seconds": tree.cpu_seconds,
        "peak_rss_bytes": tree.peak_rss_bytes,
        "seconds": tree.seconds,
    }


def _summary(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {key: median(run[key] for run in runs) for key in FIGURES} | {"runs": list(runs)}


def _ratios(
    ray: Mapping[str, float] | None, local: Mapping[str, float]
) -> dict[str, float | None] | None:
    """Return Ray's figure over ours: above one, ours is faster or smaller; None over zero."""
    if ray is None:
        return None
    return {key: ray[key] / local[key] if local[key] else None for key in RATIOS}


def _why_no_ray() -> str | None:
    """Return why Ray cannot run here, or None when it can."""
    if find_spec("ray") is None:
        return "Ray is not installed: pip install '.[ray]'"
    return None


def _machine() -> dict[str, Any]:
    def found(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: found(name) for name in ("flwr", "ray", "torch", "numpy")},
    }


def _say(case: Case, name: str, run: Mapping[str, float]) -> None:
    """Tell a waiting human, on stderr, what was just measured."""
    print(
        f"{case.kind} x{case.clients} {name}: {run['seconds_per_round']:.4f} s a round"
        f" ({run['cpu_seconds_per_round']:.4f} CPU s,"
        f" {run['core_wait_seconds_per_round']:.4f} s without a core), first round after"
        f" {run['seconds_to_first_round']:.1f} s, peak {run['peak_rss_bytes'] / 1e6:.0f} MB",
        file=sys.stderr,
    )


def _table(found: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| case | engine | s a round | to end of round 1, s | CPU s a round"
        " | no core, s a round | CPU s | peak MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for case in found["cases"]:
        for name in ("local", "ray", "bare", "bare_processes"):
            if (run := case[name]) is None:
                continue
            lines.append(
                f"| {case['case']} x{case['clients']} | {name} | {run['seconds_per_round']:.4f}"
                f" | {run['seconds_to_first_round']:.1f} | {run['cpu_seconds_per_round']:.4f}"
                f" | {run['core_wait_seconds_per_round']:.4f} | {run['cpu_seconds']:.1f}"
                f" | {run['peak_rss_bytes'] / 1e6:.0f} |"
            )
        if case["ray"] is None:
            lines.append(
                f"| {case['case']} x{case['clients']} | ray | {case['ray_missing']} ||||||"
            )
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--clients", type=int, nargs="*", default=[10, 100, 500], metavar="N")
    parser.add_argument("--cnn-clients", type=int, default=20, metavar="N", help="0: no CNN")
    parser.add_argument("--rounds", type=int, default=10, help="the first is not in the median")
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes per engine")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-ray", action="store_true", help="leave Flower's Ray engine out")
    asked = parser.parse_args()
    if asked.rounds < 2 or asked.repeats < 1:
        parser.error("--rounds must be at least 2 and --repeats at least 1")
    found = measure(
        Settings(
            clients=tuple(asked.clients),
            cnn_clients=asked.cnn_clients,
            rounds=asked.rounds,
            repeats=asked.repeats,
            workers=asked.workers,
            ray=not asked.no_ray,
        )
    )
    print(json.dumps(found, indent=1) if asked.json else _table(found))


if __name__ == "__main__":
    main()
