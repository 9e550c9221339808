"""The attacks of benchmarks/ledger.py at reduced scale; the full one takes a quarter of an hour."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NOTHING = {"kills": 0, "tampers": 0, "plans": 0, "torn-rounds": 0, "fault-rounds": 0,
           "appends": 0, "verify-rounds": 0}  # fmt: skip

pytestmark = pytest.mark.slow


def attacked(**parts: int) -> dict[str, Any]:
    """Run some parts; nothing may be lost, under-counted or undetected."""
    given = NOTHING | {name.replace("_", "-"): count for name, count in parts.items()}
    words = [f"--{name}={count}" for name, count in given.items()]
    done = subprocess.run(
        [sys.executable, "ledger.py", "--json", *words],
        cwd=BENCHMARKS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == [] and done.returncode == 0, found
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and kills its children")
def test_kills_lose_nothing_that_was_acknowledged() -> None:
    kills = attacked(kills=40)["kills"]
    assert kills["kills"] == 40
    assert kills["acknowledged"] >= 10  # most kills wait for a first one, then strike


def test_a_torn_log_is_a_prefix_or_a_refusal() -> None:
    torn = attacked(torn_rounds=3, every=2)["torn"]
    assert torn["copies"] > 100
    assert torn["prefix"] > 0 and torn["rolled_back"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs LD_PRELOAD")
def test_a_full_disk_and_a_failing_fsync_are_refused() -> None:
    faults = attacked(fault_rounds=2)["faults"]
    if faults is None:
        pytest.skip("there is no C compiler here")
    assert len(faults) == 4
    for name, seen in faults.items():
        assert seen["faults"] >= 10
        if "for good" in name:  # a single failure may be mended by another try
            assert seen["refused"] == seen["faults"]


def test_every_class_of_tampering_is_detected() -> None:
    tampers = attacked(tampers=1)["tampers"]
    assert len(tampers) == 19
    assert all(seen["detected"] == seen["tried"] == 1 for seen in tampers.values())


def test_hostile_plans_never_spend_beyond_the_policy() -> None:
    plans = attacked(plans=300)["plans"]
    assert plans["plans"] == 300
    assert plans["charged"] > 50 and plans["over_budget"] > 50  # it came to the ledger's word
    assert 0.9 < plans["largest_share"] <= 1.0
