"""The ledger under attack, at full scale: kills, torn logs, full disks, tampers, hostile plans."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ledger_faults
import ledger_kills
import ledger_plans
import ledger_tampers
import ledger_torn
from ledger_books import BUDGET, open_ledger

from collegium.core.signing import generate_key
from collegium.privacy import ledger_verify

SEED = 20261122


def append_figures(count: int) -> dict[str, Any]:
    """Return milliseconds of one append, with and without an anchor, taken in turns."""
    folder = Path(tempfile.mkdtemp(prefix="append"))
    try:
        key = generate_key()
        ledgers = {
            name: open_ledger(folder / name, key, anchored=name == "anchored")
            for name in ("plain", "anchored")
        }
        taken: dict[str, list[float]] = {name: [] for name in ledgers}
        cpu = dict.fromkeys(ledgers, 0.0)
        for number in range(count):
            for name, ledger in ledgers.items():
                began, busy = time.perf_counter(), time.process_time()
                ledger.release(model_sha256=f"sha256:{number}")
                taken[name].append(1e3 * (time.perf_counter() - began))
                cpu[name] += 1e3 * (time.process_time() - busy) / count
        for ledger in ledgers.values():
            ledger.close()
        began = time.perf_counter()
        open_ledger(folder / "anchored", key).close()
        opened = time.perf_counter() - began
        began = time.process_time()
        ledger_verify.verify(folder / "anchored" / "l.sqlite", key.public_key())
        verified = time.process_time() - began
    finally:
        shutil.rmtree(folder)
    return {
        name: {"median_ms": statistics.median(found), "p99_ms": _p99(found), "cpu_ms": cpu[name]}
        for name, found in taken.items()
    } | {"entries": count + 1, "open_s": opened, "verify_cpu_s": verified}


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def verify_figures(rounds: int) -> dict[str, Any]:
    """Return the CPU seconds that verifying ``rounds`` reserves and commits takes."""
    folder = Path(tempfile.mkdtemp(prefix="verify"))
    try:
        key = ledger_tampers.honest(folder, rounds)
        began = time.process_time()
        told = ledger_verify.verify(
            folder / "l.sqlite", key.public_key(), anchor=folder / "anchor" / "l.anchor"
        )
        taken = time.process_time() - began
    finally:
        shutil.rmtree(folder)
    return {"entries": told["entries"], "cpu_s": taken, "epsilon": told["epsilon"],
            "budget": BUDGET.epsilon}  # fmt: skip


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Return every figure that was asked for; 0 leaves a part out."""
    parts: Mapping[str, tuple[int, Callable[[], Any]]] = {
        "append": (given.appends, lambda: append_figures(given.appends)),
        "verify": (given.verify_rounds, lambda: verify_figures(given.verify_rounds)),
        "kills": (given.kills, lambda: asdict(ledger_kills.run(given.kills, SEED))),
        "torn": (
            given.torn_rounds,
            lambda: asdict(ledger_torn.run(given.torn_rounds, given.every)),
        ),
        "faults": (
            given.fault_rounds,
            lambda: ledger_faults.run(given.fault_rounds, given.every),
        ),
        "tampers": (given.tampers, lambda: _tampers(given.tampers)),
        "plans": (given.plans, lambda: asdict(ledger_plans.run(given.plans, SEED))),
    }
    found: dict[str, Any] = {"schema": 1, "machine": _machine()}
    for name, (wanted, part) in parts.items():
        if wanted:
            began = time.perf_counter()
            found[name] = part()
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return found


def failures(found: Mapping[str, Any]) -> list[str]:
    """Return what must not be: losses, under-counts, wrong answers, undetected tampers."""
    wrong: list[str] = []
    kills = found.get("kills", {})
    wrong += [f"kills: {name}" for name in ("lost", "under_counted", "unopened") if kills.get(name)]
    wrong += [f"torn: {what}" for what in found.get("torn", {}).get("wrong", ())]
    for name, seen in (found.get("faults") or {}).items():
        wrong += [f"{name}: {what}" for what in seen["wrong"]]
    for name, seen in found.get("tampers", {}).items():
        if seen["detected"] != seen["tried"]:
            wrong.append(f"{name}: {seen['detected']} of {seen['tried']}")
    wrong += [f"plans: {what}" for what in found.get("plans", {}).get("beyond", ())]
    return wrong


def _tampers(each: int) -> dict[str, Any]:
    return {name: asdict(seen) for name, seen in ledger_tampers.run(each, SEED).items()}


def _machine() -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cores": os.cpu_count(), "python": platform.python_version(), "load_before": load}


def _table(found: Mapping[str, Any]) -> str:
    """Return the figures as lines for a human."""
    lines: list[str] = []
    for part, values in found.items():
        if not isinstance(values, dict):
            continue
        lines.append(f"## {part}")
        lines += [f"- {name}: {value}" for name, value in values.items()]
    return "\n".join(lines)


def main() -> int:
    """Run what was asked for; 1 when anything was lost, under-counted or not detected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--tampers", type=int, default=20, help="of each class")
    parser.add_argument("--plans", type=int, default=10_000)
    parser.add_argument("--torn-rounds", type=int, default=8)
    parser.add_argument("--fault-rounds", type=int, default=6)
    parser.add_argument("--every", type=int, default=1, help="512-byte sector, failing call")
    parser.add_argument("--appends", type=int, default=2000)
    parser.add_argument("--verify-rounds", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given)
    found["failures"] = failures(found)
    print(json.dumps(found) if given.json else _table(found))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
