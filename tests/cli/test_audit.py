"""``collegium audit``: the table, the JSON, and the exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run
from collegium.simulations.mutants import MUTANTS, short_plan, short_records
from collegium.simulations.short_run import short_run


def made(folder: Path, mutant: str | None = None) -> Path:
    """A short run, of a broken build if named."""
    plan = short_plan(4)
    if mutant is None:
        short_run(plan, short_records(plan, 4), folder)
    else:
        with MUTANTS[mutant]():
            short_run(plan, short_records(plan, 4), folder)
    return folder


def test_a_correct_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", str(made(tmp_path / "run"))]) == 0
    shown = capsys.readouterr().out
    assert "Audit passed" in shown
    assert "honest software" in shown
    assert "no privacy guarantee: noise reproducible" in shown
    assert "3 sites" in shown  # what passed everywhere is one row
    assert (tmp_path / "run" / "audit.json").is_file()


def test_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path / "run")
    assert run(["audit", str(folder), "--json"]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert values["passed"] is True
    assert values == json.loads((folder / "audit.json").read_text()) | {"membership": None}


def test_a_broken_build_answers_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path / "run", "noise halved")
    assert run(["audit", str(folder)]) == 1
    captured = capsys.readouterr()
    assert "noise size" in captured.out
    assert "failed" in captured.out
    assert "the audit failed: noise size (s0)" in captured.err
    assert run(["audit", str(folder), "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["passed"] is False
    assert json.loads(captured.err)["error"]["exit_code"] == 1


def test_nothing_to_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", str(tmp_path / "nowhere")]) == 66
    folder = made(tmp_path / "run")
    for path in (folder / "sites").glob("*/evidence.jsonl"):
        path.unlink()
    assert run(["audit", str(folder)]) == 66
    assert "Cure: run the plan again" in capsys.readouterr().err


def test_a_broken_run_answers_65(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    (folder / "sites" / "s0" / "evidence.jsonl").write_text("[]\n")
    assert run(["audit", str(folder)]) == 65


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = str(tmp_path / "site.toml")
    assert run(["audit"]) == 64
    assert run(["audit", "run", "--site", site]) == 64
    assert run(["audit", "--site", site, "--canaries", "50"]) == 64
    assert run(["audit", "run", "--canaries", "3"]) == 64
    assert run(["audit", "--site", site]) == 66
    capsys.readouterr()
    assert run(["audit", "--help"]) == 0
    assert "collegium audit run --canaries 300" in capsys.readouterr().out
