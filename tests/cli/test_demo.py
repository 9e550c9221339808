"""The demo as a newcomer runs it: a process of its own, from import to verified bundle."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def call(*words: object, limit_s: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collegium", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=limit_s,
    )  # fmt: skip


@pytest.mark.slow
def test_demo_ends_with_a_bundle_that_a_device_accepts(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = call("demo", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout and "\x1b" not in done.stdout
    values = json.loads((run / "result.json").read_text())
    edge = values["edge"]
    assert edge["verified"] and values["epsilon_max"] <= 3.0
    assert edge["agreement"] >= 0.95 and edge["size_ratio"] >= 10
    key = ("--key", run / "keys" / "bundle.pub")
    assert call("edge", "verify", run / "bundle", *key).returncode == 77
    assert call("edge", "verify", run / "bundle", *key, "--allow-simulated").returncode == 0
    shown = call("ledger", "show", run, "--json")
    assert shown.returncode == 0 and len(json.loads(shown.stdout)["ledgers"]) == 4
    again = call("publish", run, "--out", tmp_path / "bundle", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["size_bytes"] == values["edge"]["size_bytes"]
    report = call("report", run, "--out", tmp_path / "study.html")
    assert report.stdout.strip() == str(tmp_path / "study.html")


@pytest.mark.slow
def test_breast_cancer_demo_prints_its_result(tmp_path: Path) -> None:
    done = call("demo", "--task", "breast-cancer", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["global"]["metrics"]["auc"] > 0.95
    assert values["global"]["accuracy"] > values["global"]["metrics"]["majority"]
