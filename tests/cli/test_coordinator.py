"""``collegium coordinator``: what a person types, in real processes."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from collegium.cli.coordinator import group
from collegium.cli.coordinator_view import status_lines
from collegium.cli.main import run as collegium
from collegium.cli.view import View

_SPEC = importlib.util.spec_from_file_location(
    "federation_fixtures", Path(__file__).parents[1] / "server" / "conftest.py"
)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)
make_federation = _FIXTURES.make_federation
live_sites = _FIXTURES.live_sites

WORDS = [sys.executable, "-m", "collegium", "coordinator"]


ROUNDS = 15  # more than can be over before a signal arrives


def heed_ctrl_c() -> None:
    """A shell that starts tests in the background lets all they start ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(true: Callable[[], bool], within_s: float = 90.0) -> bool:
    until = time.monotonic() + within_s
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return true()


@contextmanager
def started(lab: Any) -> Iterator[subprocess.Popen[str]]:
    """``coordinator start`` as its own process, up; killed if the test leaves it."""
    words = [*WORDS, "start", str(lab.home)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        with process.stdout:
            told: list[str] = []
            while not any(line.startswith("Next:") for line in told):
                line = process.stdout.readline()
                assert line, "".join(told)
                told.append(line)
            assert "LAB ROSTER" in told[0]
            yield process
    finally:
        process.kill()
        process.wait()


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


# --- without processes --------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["start"], ["run"], ["status"]])
def test_help_imports_neither_torch_nor_flower(words: list[str]) -> None:
    code = (
        "import sys\nfrom collegium.cli.main import run\n"
        f"run(['coordinator', *{words!r}, '--help'])\n"
        "assert not {'torch', 'flwr', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: collegium coordinator" in done.stdout


@pytest.mark.parametrize("word", ["start", "status"])
def test_a_folder_that_was_not_provisioned_answers_66(
    tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collegium(["coordinator", word, str(tmp_path)]) == 66
    assert "collegium provision" in capsys.readouterr().err


def test_without_a_coordinator_a_run_answers_69_and_keeps_its_folder(
    make_federation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = make_federation()
    words = ["coordinator", "run", str(lab.home), "--out", str(lab.run)]
    assert collegium(words) == 69
    assert "coordinator start" in capsys.readouterr().err
    assert collegium(words) == 73
    assert collegium([*words, "--resume"]) == 69
    assert len(list((lab.state / "jobs").iterdir())) == 1, "one job, whatever was tried"


def test_a_port_that_is_taken_answers_69_and_leaves_nothing_running(
    make_federation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = make_federation()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert collegium(["coordinator", "start", str(lab.home), "--port", port]) == 69
    assert f"port {port}" in capsys.readouterr().err
    assert (
        json.loads(CliRunner().invoke(group, ["status", str(lab.home), "--json"]).output)[
            "coordinator"
        ]
        is None
    )


def test_status_of_an_idle_coordinator(make_federation: Any) -> None:
    lab = make_federation()
    lab.prepare()
    done = CliRunner().invoke(group, ["status", str(lab.home)])
    assert done.exit_code == 0, done.output
    assert "coordinator: not running" in done.output
    assert "open, nothing at work, round 0 of 3 durable" in done.output


def test_status_after_a_run_tells_each_sites_last_head(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    lab.finish()
    found = json.loads(CliRunner().invoke(group, ["status", str(lab.home), "--json"]).output)
    assert found["jobs"][0]["state"] == "finished" and found["jobs"][0]["round"] == 3
    assert {site["state"] for site in found["sites"]} == {"done"}
    assert all(site["ledger_head"] for site in found["sites"])
    assert len(list(status_lines(found))) >= 6


def test_what_a_site_has_sent_moves_no_cursor(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    path = lab.run / "stages" / "federation.json"
    found = json.loads(path.read_text())
    found["heads"]["s1"] = "\x1b[2J\x1b]0;pwned\x07"
    path.write_text(json.dumps(found))
    done = CliRunner().invoke(group, ["status", str(lab.home)])
    assert done.exit_code == 0 and "pwned" in done.output
    assert "\x1b" not in done.output and "\x07" not in done.output


def test_a_damaged_run_is_told_beside_the_others(make_federation: Any) -> None:
    lab = make_federation()
    lab.prepare()
    (lab.run / "rounds" / "rounds.sqlite").write_bytes(b"not a database" * 100)
    done = CliRunner().invoke(group, ["status", str(lab.home)])
    assert done.exit_code == 0, done.exception
    assert "its rounds cannot be read" in done.output


@pytest.mark.parametrize(("name", "code"), [("afile/run", 73), ("afile", 73), ("x" * 300, 65)])
def test_an_out_that_no_folder_can_be(
    make_federation: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    lab = make_federation()
    (tmp_path / "afile").write_text("")
    words = ["coordinator", "run", str(lab.home), "--out", str(tmp_path / name)]
    assert collegium(words) == code
    assert "--out" in capsys.readouterr().err


class Heard(View):
    """Remembers what the view was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Any, ...]] = []

    def started(self, plan: Any, specs: Any, history: Any) -> None:
        self.told.append(("started", len(history)))

    def invited(self, round: int, site: str) -> None:
        self.told.append(("invited", round, site))

    def site_state(self, site: str, state: str) -> None:
        self.told.append((site, state))

    def answered(self, round: int, site: str, code: str) -> None:
        self.told.append(("answered", round, site, code))

    def round_done(self, release: Any) -> None:
        self.told.append(("round", release.round))


def test_the_feed_shows_every_round_once(make_federation: Any) -> None:
    from collegium.server.events import all_events
    from collegium.simulations.feed import Feed

    lab = make_federation()
    lab.drive()
    events = all_events(lab.run)
    view = Heard()
    feed = Feed(lab.plan, view, lab.run)
    feed.begin()
    for event in events:
        feed.hear(event)
    assert view.told[0] == ("started", 3)
    assert not [told for told in view.told if told[0] == "round"], "durable before, shown before"
    view = Heard()
    feed = Feed(lab.plan, view, lab.folder / "nowhere")
    feed.begin()
    for event in [*events, *events]:
        feed.hear(event)
    assert [told[1] for told in view.told if told[0] == "round"] == [1, 2, 3]
    assert ("s0", "waiting") in view.told
    assert ("invited", 1, "s0") in view.told
    assert ("answered", 3, "s2", "ok") in view.told


# --- in real processes --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_coordinator_is_started_looked_at_used_interrupted_and_stopped(
    make_federation: Any, make_plan: Any, live_sites: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    lab = make_federation(make_plan(sites=2, rounds=ROUNDS), address=f"127.0.0.1:{port}")
    run = ["run", str(lab.home), "--out", str(lab.run)]
    with started(lab) as process:
        children = family(process.pid)
        status = json.loads(CliRunner().invoke(group, ["status", str(lab.home), "--json"]).output)
        assert status["coordinator"] == {"pid": process.pid, "port": port, "healthy": True}
        assert {site["connection"] for site in status["sites"]} == {"registered"}
        assert collegium(["coordinator", "start", str(lab.home)]) == 73, "one per state folder"

        with live_sites(lab, free_port(), slow="s1"):
            first = subprocess.Popen(
                [*WORDS, *run],
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=heed_ctrl_c,  # noqa: PLW1509
            )
            assert wait_for(lambda: '"kind": "round"' in _text(lab.run / "events.jsonl"))
            first.send_signal(signal.SIGINT)
            _, words = first.communicate(timeout=60)
            assert first.returncode == 75
            assert "--resume to go on" in words and str(lab.home) in words
            assert collegium(["coordinator", *run]) == 73
            capsys.readouterr()
            assert collegium(["coordinator", *run, "--resume", "--json"]) == 0
            values = json.loads(capsys.readouterr().out)
        assert [entry["round"] for entry in values["history"]] == list(range(1, ROUNDS + 1))
        assert (lab.run / "report.html").is_file() and (lab.run / "privacy.json").is_file()
        for site in lab.sites.values():
            assert sum(entry.kind == "reserve" for entry in site.ledger.entries()) == ROUNDS
        assert collegium(["coordinator", *run, "--resume", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == values

        children = [*children, *family(process.pid)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert wait_for(lambda: not [child for child in children if _lives(child)], 10)


@pytest.mark.slow
def test_a_supervisor_that_is_killed_leaves_no_process(make_federation: Any) -> None:
    lab = make_federation(address=f"127.0.0.1:{free_port()}")
    with started(lab) as process:
        children = family(process.pid)
        assert len(children) >= 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert wait_for(lambda: not [child for child in children if _lives(child)], 20)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
