"""Jobs by name, one coordinator per state folder, one ServerApp per run folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collegium.core.errors import (
    Interrupted,
    InvalidInput,
    MissingInput,
    NotAvailable,
    OutputExists,
)
from collegium.server.coordinator_state import (
    Job,
    end_holder,
    find_running,
    hold_run,
    holder_of,
    jobs,
    read_job,
    running,
    write_job,
)

HOLD = """
import signal, sys, time
from pathlib import Path
from collegium.server.coordinator_state import hold_run
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with hold_run(Path(sys.argv[1]), 41):
    print("held", flush=True)
    time.sleep(600)
"""


def holding(folder: Path, how: str = "") -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, str(folder), how]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    return process


def test_a_job_is_found_again(tmp_path: Path) -> None:
    job = Job(job="abc-1", run=tmp_path / "run", home=tmp_path / "home")
    write_job(tmp_path, job)
    assert read_job(tmp_path, "abc-1") == job
    assert jobs(tmp_path) == [job]
    assert (tmp_path / "jobs" / "abc-1.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../jobs/a", "A", "ä", "a" * 65, "a\n"])
def test_a_name_that_could_be_a_path_is_no_job(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        read_job(tmp_path, name)
    with pytest.raises(InvalidInput):
        write_job(tmp_path, Job(job=name, run=tmp_path, home=tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": "run", "home": "/h"}', '{"run": 7}'])
def test_a_broken_job_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a.json").write_text(text)
    with pytest.raises(InvalidInput):
        read_job(tmp_path, "a")
    with pytest.raises(MissingInput):
        read_job(tmp_path, "b")


def test_one_coordinator_per_state_folder(tmp_path: Path) -> None:
    assert find_running(tmp_path) is None
    with running(tmp_path, 9100):
        found = find_running(tmp_path)
        assert found is not None
        assert (found.pid, found.port) == (os.getpid(), 9100)
        with pytest.raises(OutputExists, match="already runs"), running(tmp_path, 9101):
            pass
        assert find_running(tmp_path) == found
    assert find_running(tmp_path) is None
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_one_that_was_killed_is_not_running(tmp_path: Path) -> None:
    with running(tmp_path, 9100):
        told = (tmp_path / "running.json").read_bytes()
    (tmp_path / "running.json").write_bytes(told)  # what kill -9 leaves
    assert find_running(tmp_path) is None
    with running(tmp_path, 9102):
        found = find_running(tmp_path)
        assert found is not None and found.port == 9102


def test_two_serverapps_never_hold_one_run(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    process = holding(tmp_path)
    try:
        found = holder_of(tmp_path)
        assert found is not None
        assert (found.pid, found.run_id) == (process.pid, 41)
        with pytest.raises(Interrupted, match="still at work"), hold_run(tmp_path, 2, within_s=0.3):
            pass
    finally:
        process.kill()
        process.wait()
    with hold_run(tmp_path, 42):
        found = holder_of(tmp_path)
        assert found is not None and found.run_id == 42
    assert holder_of(tmp_path) is None


@pytest.mark.parametrize("how", ["", "deaf"])
def test_a_stale_serverapp_is_ended(tmp_path: Path, how: str) -> None:
    process = holding(tmp_path, how)
    end_holder(tmp_path, within_s=0.5)
    assert process.wait() == -(signal.SIGKILL if how else signal.SIGTERM)
    assert holder_of(tmp_path) is None
    end_holder(tmp_path)  # nobody: nothing happens


def test_a_lock_file_with_nonsense_names_nobody(tmp_path: Path) -> None:
    (tmp_path / ".serverapp.lock").write_text(json.dumps({"pid": "me"}))
    assert holder_of(tmp_path) is None
    before = time.monotonic()
    end_holder(tmp_path, within_s=30)
    assert time.monotonic() - before < 30


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_holder_of_another_user_is_named_not_waited_for(tmp_path: Path) -> None:
    process = holding(tmp_path)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from collegium.server.coordinator_state import end_holder\n"
        "from collegium.core.errors import NotAvailable\n"
        "os.setuid(65534)\n"
        "try:\n    end_holder(Path('.'))\n"
        "except NotAvailable as error:\n    print(error.message())\n"
    )
    tmp_path.chmod(0o755)
    (tmp_path / ".serverapp.lock").chmod(0o644)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert f"process {process.pid}" in done.stdout and "another user" in done.stdout
    finally:
        process.kill()
        process.wait()


def test_a_holder_that_does_not_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holding(tmp_path)
    try:
        with monkeypatch.context() as patch, pytest.raises(NotAvailable, match="does not end"):
            patch.setattr(os, "kill", lambda *_: None)  # a process in the kernel hears no signal
            end_holder(tmp_path, within_s=0.3)
    finally:
        process.kill()
        process.wait()
