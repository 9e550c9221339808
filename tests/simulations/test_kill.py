"""SIGKILL a real process at random moments, resume it, and nobody can tell from the result."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("tests_conftest", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["tests_conftest"] = module
spec.loader.exec_module(module)
from collegium.simulations.run import simulate
from collegium.core.plan import Plan
plan = module.tiny_plan(4, rounds=12, codec="bf16", strategy={"iterate_average": 0.5})
sites = module.tiny_records(plan)
print("go", flush=True)
simulate(plan, sites=sites, out=sys.argv[2], resume=True)
print("done", flush=True)
"""
SAME = ("model_sha256", "epsilon_max", "epsilon_if_shared", "global", "plan_sha256", "rounds")


def start(folder: Path) -> "subprocess.Popen[str]":
    """A run in a process of its own, imported and about to begin."""
    conftest = Path(__file__).resolve().parents[1] / "conftest.py"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(conftest), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "go\n"
    return child


def finish(folder: Path) -> dict[str, Any]:
    """Resume until done; return result.json."""
    child = start(folder)
    rest, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    assert rest == "done\n"
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    began = time.monotonic()
    expected = finish(tmp_path / "undisturbed")
    longest = max(sum(entry["seconds"] for entry in expected["history"]), 0.2) + 0.3
    assert time.monotonic() > began
    rng, kills, rounds_at_kill = random.Random(1), 0, []
    for number in range(3):
        folder = tmp_path / str(number)
        for share in (rng.uniform(0.02, 0.5), rng.uniform(0.2, 0.8)):
            child = start(folder)
            time.sleep(share * longest)
            child.kill()
            child.communicate()
            kills += child.returncode == -9
            rounds_at_kill.append(len(list((folder / "updates").glob("round-*"))))
        found = finish(folder)
        for key in SAME:
            assert found[key] == expected[key], key
        for site, other in zip(found["sites"], expected["sites"], strict=True):
            assert site == other
        for entry, other in zip(found["history"], expected["history"], strict=True):
            for key in ("round", "model_sha256", "sites", "refused", "late", "epsilon"):
                assert entry[key] == other[key]
        reserves = [site["noisy_steps"] for site in found["privacy"]["epsilon_by_site"].values()]
        assert reserves == [12] * 4  # nothing was charged twice
    assert kills >= 4, f"too few of the kills hit a living process: {rounds_at_kill}"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "run" / "plan.toml").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(first.pid, 19)  # SIGSTOP: it holds the folder and does not get on
        second = start(tmp_path / "run")
        second.communicate(timeout=60)
        assert second.returncode != 0
    finally:
        os.kill(first.pid, 18)
        first.kill()
        first.communicate()
