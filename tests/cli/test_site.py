"""The site's verbs as they are typed: exit codes, JSON, and a real process from start to stop."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run
from collegium.client.control import ControlClient
from collegium.core.errors import NotAvailable

Make = Callable[..., Any]


@pytest.fixture
def town(tmp_path: Path, make_plan: Make) -> Any:
    """A real federation, one site of it; see tests/client/conftest.py."""
    import importlib.util

    path = Path(__file__).parent.parent / "client" / "conftest.py"
    spec = importlib.util.spec_from_file_location("collegium_tests_client", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Town(tmp_path / "t", make_plan(2))


def site_toml(town: Any) -> str:
    return str(town.home / "site.toml")


def test_preflight_answers_0_or_1(town: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "preflight", site_toml(town), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] and {"check", "state", "text", "cure"} == set(told["checks"][0])
    town.write_site_file(max_steps=1)
    assert run(["site", "preflight", site_toml(town), "--json"]) == 1
    captured = capsys.readouterr()
    assert not json.loads(captured.out)["ok"] and "1 check did not pass" in captured.err
    assert run(["site", "preflight", site_toml(town)]) == 1
    assert "policy-steps" in capsys.readouterr().out


def test_nobody_there_is_69(town: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "status", site_toml(town)]) == 69
    assert run(["site", "approve", site_toml(town), "--cancel", "0" * 32]) == 69
    assert "no site process" in capsys.readouterr().err


def test_no_file_is_66_and_a_bad_one_65(tmp_path: Path) -> None:
    for verb in ("preflight", "approve", "start", "status"):
        assert run(["site", verb, str(tmp_path / "none.toml")]) == 66
    (tmp_path / "site.toml").write_text("schema = 2")
    assert run(["site", "status", str(tmp_path / "site.toml")]) == 65


def test_approve_withdraw_and_start(town: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "start", site_toml(town)]) == 77
    assert "has not approved" in capsys.readouterr().err
    assert run(["site", "approve", site_toml(town), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plan"] == town.plan_digest
    assert "max_epsilon 3" in told["may spend"]
    assert run(["site", "approve", site_toml(town), "--withdraw"]) == 0
    assert run(["site", "approve", site_toml(town), "--withdraw"]) == 0
    assert "there was no approval" in capsys.readouterr().out
    assert run(["site", "start", site_toml(town)]) == 77
    assert run(["site", "approve", site_toml(town), "--withdraw", "--rotate-keys"]) == 64


def test_a_plan_outside_the_policy_cannot_be_approved(town: Any) -> None:
    town.write_site_file(min_sites=9)
    assert run(["site", "approve", site_toml(town)]) == 77
    assert not (town.home / "state" / "approval.json").exists()


def test_records_that_do_not_fit_cannot_be_approved(town: Any) -> None:
    town.write_records(count=41)
    assert run(["site", "approve", site_toml(town)]) == 65


def test_a_new_export_is_attached_by_a_signed_note(
    town: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from collegium.privacy.ledger_store import open_readonly, read_rows

    def notes() -> list[str]:
        with open_readonly(town.file.ledger_path) as connection:
            return [json.loads(row[2]).get("note", "") for row in read_rows(connection)]

    town.approve()
    town.open().ledger.close()
    town.write_records(change=0.25)
    assert run(["site", "approve", site_toml(town)]) == 0
    assert run(["site", "start", site_toml(town)]) == 77
    assert "--attach NOTE" in capsys.readouterr().err
    for wrong in (["--attach", " "], ["--attach", "a", "--withdraw"]):
        assert run(["site", "approve", site_toml(town), *wrong]) == 64
    assert len(notes()) == 1
    assert run(["site", "approve", site_toml(town), "--attach", "one value mended, MM"]) == 0
    assert "ward, ledger head sha256:" in capsys.readouterr().out
    assert notes()[1:] == ["one value mended, MM"]
    town.open().ledger.close()  # and the site starts with it, as it did with the old one
    assert run(["site", "approve", site_toml(town), "--attach", "again"]) == 0
    assert len(notes()) == 2


def test_keys_are_rotated_at_rest(town: Any, capsys: pytest.CaptureFixture[str]) -> None:
    town.approve()
    town.open().ledger.close()
    assert run(["site", "approve", site_toml(town), "--rotate-keys", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new key"].startswith("ed25519:")
    assert run(["site", "start", site_toml(town)]) == 77


def test_a_running_site_is_asked_about_what_lies_here(
    town: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Approving compares digests; cancelling says when the ledger has no such job."""
    from collegium.client.service import SiteService

    class Idle:
        def next_task(self) -> None:
            return None

    town.approve()
    service, stop, ready = SiteService(town.file, town.kit()), threading.Event(), threading.Event()
    thread = threading.Thread(target=service.run, args=(Idle(), stop, ready.set))
    thread.start()
    try:
        assert ready.wait(60)
        assert run(["site", "approve", site_toml(town), "--json"]) == 0
        assert "what lies here" in json.loads(capsys.readouterr().out)["approved"]
        town.write_site_file(max_epsilon=1.0)
        assert run(["site", "approve", site_toml(town)]) == 77
        assert run(["site", "approve", site_toml(town), "--attach", "new"]) == 77
        assert "start it again" in capsys.readouterr().err
        assert run(["site", "approve", site_toml(town), "--cancel", "0" * 32]) == 0
        assert "no such job" in capsys.readouterr().out
        service._site.brake._jobs = frozenset()
        service._site.train(town.ask(service._site, job="1" * 32))
        assert run(["site", "approve", site_toml(town), "--cancel", "1" * 32, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"cancelled": "1" * 32}
    finally:
        stop.set()
        thread.join(60)


@pytest.mark.slow
def test_a_real_process_from_start_to_stop(town: Any) -> None:
    """Its SuperNode finds no coordinator; the site waits, answers its socket, and ends with 0."""
    town.approve()
    process = subprocess.Popen(
        [sys.executable, "-m", "collegium", "site", "start", site_toml(town), "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        client = _ready(process, town)
        standing = client.standing()
        assert (standing.site, standing.supernode) == ("s0", "running")
        client.close()
        children = _children(process.pid)
        assert children
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert [json.loads(line)["level"] for line in out.splitlines()]
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    finally:
        process.kill()
        process.wait()
    for name in ("log.jsonl", "net/runtime.secret"):
        assert (town.home / "state" / name).stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_kill_9_leaves_no_supernode_behind(town: Any) -> None:
    town.approve()
    process = subprocess.Popen(
        [sys.executable, "-m", "collegium", "site", "start", site_toml(town)]
    )
    try:
        _ready(process, town).close()
        children = _children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for _ in range(600):
            if not [pid for pid in children if Path(f"/proc/{pid}").exists()]:
                return
            threading.Event().wait(0.05)
        raise AssertionError("a child outlived its parent")
    finally:
        process.kill()
        process.wait()


def _ready(process: "subprocess.Popen[Any]", town: Any) -> ControlClient:
    """The way to the process, once it is ready and its SuperNode runs."""
    path = town.home / "state" / "run" / "site.sock"
    for _ in range(1200):
        assert process.poll() is None
        try:
            client = ControlClient(path)
        except NotAvailable:
            threading.Event().wait(0.05)
            continue
        if client.standing().supernode == "running":
            return client
        client.close()
        threading.Event().wait(0.05)
    raise AssertionError("it was never ready")


def _children(root: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(root).children(recursive=True)]


def test_a_lab_starts_by_its_word_alone(town: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One word in a file that the coordinator wrote must not turn every protection off."""
    assert run(["site", "start", site_toml(town), "--lab"]) == 77
    assert 'mode = "real"' in capsys.readouterr().err
    path = town.home / "site.toml"
    text = path.read_text()
    path.write_text(text.replace('mode = "real"', 'mode = "simulation"'))
    assert run(["site", "start", str(path)]) == 77
    assert "--lab" in capsys.readouterr().err
