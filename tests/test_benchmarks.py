"""The benchmarks run at their smallest setting and say what they promise to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
FIGURES = {
    "seconds_per_round",
    "seconds_to_first_round",
    "cpu_seconds_per_round",
    "core_wait_seconds_per_round",
    "cpu_seconds",
    "peak_rss_bytes",
    "runs",
}


def run(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *words], cwd=BENCHMARKS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # nothing else may stand on stdout


def test_simulation_without_ray_gives_null_and_the_reason() -> None:
    found = run(
        *("simulation.py", "--json", "--no-ray", "--clients", "2", "--cnn-clients", "0"),
        *("--rounds", "2", "--repeats", "1"),
    )
    assert found["schema"] == 1
    assert set(found) == {"schema", "machine", "settings", "cases"}
    (case,) = found["cases"]
    assert (case["case"], case["clients"], case["parameters"]) == ("empty", 2, 1000)
    assert case["ray"] is None and case["ray_over_local"] is None
    assert case["ray_missing"] == "switched off with --no-ray"
    assert set(case["local"]) == FIGURES
    assert all(case["local"][name] >= 0 for name in FIGURES - {"runs"})
    assert len(case["local"]["runs"]) == 1


@pytest.mark.slow
def test_simulation_cnn_has_bare_loops_beside_it() -> None:
    found = run(
        *("simulation.py", "--json", "--no-ray", "--clients", "--cnn-clients", "1"),
        *("--rounds", "2", "--repeats", "1", "--workers", "1"),
    )
    (case,) = found["cases"]
    assert (case["case"], case["parameters"]) == ("cnn", 1_199_882)
    assert set(case["bare"]) == set(case["bare_processes"]) == FIGURES
