"""A supervised command: started again, logged, and gone with all it started, however we end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collegium.client.leash import started_by
from collegium.client.supervisor import STILL_CONNECTED, Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a site runs on Linux")

FAMILY = """
import os, subprocess, sys, time
code = "import os, time; open(sys.argv[1] + str(os.getpid()), 'w').close(); time.sleep(600)"
for _ in range(2):  # one of them leaves the session, as a daemon does
    subprocess.Popen(
        [sys.executable, "-c", "import sys; " + code, sys.argv[1]], start_new_session=_ == 0)
open(sys.argv[1] + str(os.getpid()), 'w').close()
print("all are up", flush=True)
time.sleep(600)
"""


def wait_for(what: Callable[[], Any]) -> Any:
    """The first true answer; fails after a minute."""
    for _ in range(1200):
        if found := what():
            return found
        threading.Event().wait(0.05)
    raise AssertionError("it never happened")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def family_of(folder: Path) -> list[int]:
    pids = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return pids if len(pids) == 3 else []


@pytest.fixture
def made() -> Iterator[list[Supervisor]]:
    """Supervisors that a test makes; all are stopped."""
    found: list[Supervisor] = []
    yield found
    for each in found:
        each.stop()


def test_it_starts_again_and_keeps_a_log(tmp_path: Path, made: list[Supervisor]) -> None:
    supervisor = Supervisor(
        [sys.executable, "-c", "print('one life')"], tmp_path / "x.log", first_pause_s=0.05
    )
    made.append(supervisor)
    supervisor.start()
    wait_for(lambda: supervisor.restarts >= 2)
    supervisor.stop()
    assert supervisor.state == "stopped" and supervisor.pid is None
    assert (tmp_path / "x.log").read_text().splitlines()[:2] == ["one life"] * 2


def test_after_flowers_305_it_waits_for_two_leases(tmp_path: Path, made: list[Supervisor]) -> None:
    supervisor = Supervisor(
        [sys.executable, "-c", f"print('{STILL_CONNECTED}')"],
        tmp_path / "x.log",
        first_pause_s=0.01,
        leases_s=500.0,
    )
    made.append(supervisor)
    supervisor.start()
    wait_for(lambda: supervisor.state == "waiting")
    threading.Event().wait(0.3)
    assert supervisor.restarts == 0  # with the short pause it would have been many
    supervisor.stop()


def test_the_log_is_bounded(tmp_path: Path, made: list[Supervisor], monkeypatch: Any) -> None:
    monkeypatch.setattr("collegium.client.supervisor._LOG_BYTES", 1000)
    supervisor = Supervisor(
        [sys.executable, "-c", "print('x' * 90 + chr(10), end='') or [print('y' * 90) "
         "for _ in range(500)]"],
        tmp_path / "x.log", first_pause_s=500,
    )  # fmt: skip
    made.append(supervisor)
    supervisor.start()
    wait_for(lambda: supervisor.state == "waiting")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x.log", "x.log.1", "x.log.2", "x.log.3",
    ]  # fmt: skip
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())


def test_stop_ends_all_that_it_started(tmp_path: Path, made: list[Supervisor]) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    supervisor = Supervisor([sys.executable, "-c", FAMILY, f"{pids}/"], tmp_path / "x.log")
    made.append(supervisor)
    supervisor.start()
    family = wait_for(lambda: family_of(pids))
    assert set(family) <= set(started_by(supervisor.pid or 0))
    supervisor.stop()
    assert not [pid for pid in family if alive(pid)]


@pytest.mark.parametrize("victim", ["supervisor", "leash", "command"])
def test_kill_9_of_any_of_them_leaves_no_orphan(tmp_path: Path, victim: str) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    code = (
        "import sys, time; from pathlib import Path;"
        "from collegium.client.supervisor import Supervisor;"
        f"s = Supervisor([sys.executable, '-c', {FAMILY!r}, '{pids}/'], Path('{tmp_path}/x.log'),"
        "first_pause_s=500);"
        "s.start();\nwhile not s.pid: time.sleep(.01)\nprint(s.pid, flush=True); time.sleep(600)"
    )
    outer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert outer.stdout is not None
        leash = int(outer.stdout.readline())
        family = wait_for(lambda: family_of(pids))
        (command,) = [pid for pid in family if _parent(pid) == leash]
        target = {"supervisor": outer.pid, "leash": leash, "command": command}[victim]
        os.kill(target, signal.SIGKILL)
        if victim == "leash":
            # who left the session is nobody's child any more: the one case that only a
            # control group (systemd's KillMode) finds
            inside = [pid for pid in family if _session(pid) in (leash, 0)]
            wait_for(lambda: not [pid for pid in inside if alive(pid)])
        else:
            wait_for(lambda: not [pid for pid in family if alive(pid)])
        if victim == "supervisor":
            wait_for(lambda: not alive(leash))
    finally:
        outer.kill()
        outer.wait()
        assert outer.stdout is not None
        outer.stdout.close()
        for pid in family_of(pids):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _session(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return 0


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """A pipe that nobody reads would stop the SuperNode after 64 KiB, without a word."""
    (tmp_path / "log").mkdir()  # no file can be opened there
    done = tmp_path / "done"
    code = f"print('x' * 300_000, flush=True); open({str(done)!r}, 'w').close(); input()"
    supervisor = Supervisor([sys.executable, "-c", code], tmp_path / "log")
    supervisor.start()
    try:
        assert wait_for(done.exists)
    finally:
        supervisor.stop()
