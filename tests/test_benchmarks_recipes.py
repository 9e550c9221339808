"""The recipe benchmark runs at its smallest setting; micro-batches are measured as promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *words], cwd=BENCHMARKS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # nothing else may stand on stdout


@pytest.mark.slow
def test_one_variant_of_one_case() -> None:
    found = run(
        *("recipes.py", "--json", "--cases", "breast-head", "--seeds", "1"),
        *("--only", "15 rounds, lr x 4, rate x 2"),
    )
    assert (found["schema"], found["seeds"]) == (1, 1)
    ((figures,),) = found["cases"]["breast-head"].values()
    assert set(figures) == {"accuracy", "auc"}
    assert 0.5 < figures["auc"] <= 1 and 0.5 < figures["accuracy"] <= 1


@pytest.mark.slow
def test_one_step_in_parts() -> None:
    found = run("micro_batch.py", "--one", "64", "1")
    assert (found["micro_batch"], found["copies"]) == (64, 1)
    assert found["step_mb"] >= 0 and len(found["sum"]) > 1000
