"""Children end with their parent and take their own children with them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from collegium.core.errors import NotAvailable
from collegium.server.processes import Child, Command, environment, program, require_free_port

SLEEP = "import time; time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
print(child.pid, flush=True)
time.sleep(600)
"""


def wait_for(true: Callable[[], bool], within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


def child_of(tmp_path: Path, code: str, **extra: str) -> Child:
    argv = (sys.executable, "-c", code)
    log = tmp_path / "logs" / "child.log"
    return Child(Command(name="child", argv=argv, environment=environment(extra), log=log))


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_its_words_are_in_its_log(tmp_path: Path) -> None:
    child = child_of(tmp_path, "import os; print('hello', os.environ['WORD'])", WORD="site")
    child.start()
    assert wait_for(lambda: not child.alive)
    child.stop()
    assert child.exit_code == 0
    assert child.tail() == "hello site\n"


def test_its_last_words_are_known_even_where_no_log_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder can be made here")
    child = child_of(tmp_path, "print('the disk'); print('\\x1b[2Jis full'); print()")
    child.start()
    assert wait_for(lambda: not child.alive)
    assert child.last_words == "?[2Jis full"
    assert child.tail() == ""
    child.start()
    child.stop()
    child.command = replace(child.command, argv=(sys.executable, "-c", ""))
    child.start()
    assert wait_for(lambda: not child.alive)
    assert child.last_words == "", "words of an earlier process are not its own"


def test_stopping_ends_the_children_of_the_child_too(tmp_path: Path) -> None:
    child = child_of(tmp_path, PARENT)
    child.start()
    assert wait_for(lambda: child.tail().strip().isdigit())
    grandchild = int(child.tail())
    assert not gone(grandchild)
    child.stop(grace_s=5.0)
    assert not child.alive
    assert wait_for(lambda: gone(grandchild))


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n" + SLEEP
    child = child_of(tmp_path, deaf)
    child.start()
    assert wait_for(lambda: child.tail() != "")
    child.stop(grace_s=0.2)
    assert child.exit_code == -signal.SIGKILL


def test_starting_again_ends_what_the_first_left(tmp_path: Path) -> None:
    child = child_of(tmp_path, PARENT)
    child.start()
    assert wait_for(lambda: child.tail().strip().isdigit())
    grandchild = int(child.tail())
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert wait_for(lambda: not child.alive)
    child.start()
    assert wait_for(lambda: gone(grandchild))
    child.stop(grace_s=1.0)


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from collegium.server.processes import Child, Command, environment
argv, log = (sys.executable, "-c", {SLEEP!r}), Path({str(tmp_path / "log")!r})
child = Child(Command(name="c", argv=argv, environment=environment({{}}), log=log))
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: gone(pid))


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collegium.server.processes._LOG_BYTES", 10_000)
    child = child_of(tmp_path, "for n in range(20_000): print('line', n)")
    child.start()
    assert wait_for(lambda: not child.alive)
    child.stop()
    files = list((tmp_path / "logs").iterdir())
    assert len(files) <= 4
    assert all(path.stat().st_size <= 10_000 for path in files)
    assert child.tail().endswith("line 19999\n")


def test_nothing_of_flower_or_a_proxy_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_FLEET_API", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("PATH", "/elsewhere")
    found = environment({"FLWR_HOME": "/state"})
    assert "FLWR_INTERNAL_GRPC_FLEET_API" not in found
    assert not [name for name in found if name.lower().endswith("_proxy")]
    assert found["FLWR_HOME"] == "/state"
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_programs_are_found_beside_the_interpreter_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other-superlink"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NotAvailable, match="other-superlink"):
        program("other-superlink")
    assert Path(program("flower-superlink")).parent == Path(sys.executable).parent


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NotAvailable, match=f"port {port}"):
            require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)
