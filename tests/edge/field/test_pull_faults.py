"""Kills, full disks and disks that cannot be written: the old version or the new, never a mix."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from collegium.edge.device import DeviceError, Home

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills are done in forked processes")
def test_a_kill_before_each_change_of_the_disk() -> None:
    done = subprocess.run(
        [sys.executable, "pull_faults.py", "--json", "--steps", "--count", "6",
         "--only", "update", "--only", "rollback"],
        cwd=BENCHMARKS, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert (done.returncode, found["faults"]) == (0, []), done.stderr
    assert found["by_case"]["update"] >= 30 and found["by_case"]["rollback"] >= 10
    assert set(found["left"]) == {"old", "new"}


@contextmanager
def mounted(place: Path, kilobytes: int) -> Iterator[None]:
    """Mount a small disk in memory; skip where that is not allowed."""
    place.mkdir()
    options = f"size={kilobytes}k"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
        capture_output=True, check=False,
    ) if os.name == "posix" and os.geteuid() == 0 else None  # fmt: skip
    if done is None or done.returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def refusal(home: Home) -> tuple[str, int]:
    with pytest.raises(DeviceError) as caught:
        home.pull()
    return caught.value.code, caught.value.exit_code


def test_a_full_disk_is_seen_before_the_first_byte(field_: Any) -> None:
    field_.publish(1)
    with mounted(field_.folder / "disk", 2600):
        field_.path = field_.folder / "disk" / "home"
        field_.store = type(field_.store)(field_.path)
        home = field_.home()
        home.pull()
        field_.publish(2)
        (field_.folder / "disk" / "filler").write_bytes(bytes(1_000_000))
        assert refusal(home) == ("FULL DISK", 75)
        assert field_.runs(home) == 1 and field_.state.last_pull["code"] == "FULL DISK"
        (field_.folder / "disk" / "filler").unlink()
        assert home.pull().before == 1 and field_.runs(home) == 2


def test_a_disk_that_fills_up_while_files_come(
    field_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.edge.device import install

    field_.publish(1)
    with mounted(field_.folder / "disk", 1000):
        field_.path = field_.folder / "disk" / "home"
        field_.store = type(field_.store)(field_.path)
        home = field_.home()
        monkeypatch.setattr(install, "_require_room", lambda *_: None)  # as if there were room
        home.pull()
        field_.publish(2)
        filler = field_.folder / "disk" / "filler"
        free = os.statvfs(filler.parent).f_bavail * os.statvfs(filler.parent).f_frsize
        filler.write_bytes(bytes(free - 100_000))
        assert refusal(home) == ("FULL DISK", 75)
        assert field_.runs(home) == 1
        filler.unlink()
        assert home.pull().before == 1 and field_.runs(home) == 2
        assert field_.leftovers() == set()


def test_a_disk_that_cannot_be_written(field_: Any) -> None:
    field_.publish(1)
    with mounted(field_.folder / "disk", 4000):
        field_.path = field_.folder / "disk" / "home"
        field_.store = type(field_.store)(field_.path)
        home = field_.home()
        home.pull()
        remount = ["mount", "-o", "remount,ro", str(field_.folder / "disk")]
        subprocess.run(remount, check=True, capture_output=True)
        field_.publish(2)
        assert refusal(home) == ("DISK", 66)
        assert field_.runs(home) == 1 and home.health()["ok"]


def test_a_limit_on_the_size_of_files(field_: Any) -> None:
    """RLIMIT_FSIZE in a process of its own: a write fails in the middle of a file."""
    field_.publish(1)
    home = field_.home()
    program = (
        "import resource, sys; from pathlib import Path; from collegium.edge.device import main; "
        "limit = (100_000, resource.RLIM_INFINITY); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, limit); "
        "sys.exit(main(['pull', sys.argv[1], '--json']))"
    )
    if os.name != "posix":
        pytest.skip("there are no such limits here")
    done = subprocess.run(
        [sys.executable, "-c", program, str(field_.path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert json.loads(done.stdout)["code"] == "FULL DISK"
    assert field_.state.current is None
    assert home.pull().outcome == "updated" and field_.leftovers() == set()


def test_two_pulls_at_once(field_: Any) -> None:
    """The second process says so at once, and the first goes on."""
    field_.publish(1)
    home = field_.home()
    with field_.store.locked():
        done = subprocess.run(
            [sys.executable, "-m", "collegium", "edge", "pull", str(field_.path), "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["code"]) == (75, "BUSY")
    assert home.pull().outcome == "updated"


def test_ctrl_c_is_resumable(field_: Any) -> None:
    from collegium.edge.device.pull import Pulling

    field_.publish(1)
    home = field_.home()

    def stop(name: str, _done: int, _size: int | None) -> None:
        if name == "selftest.npz":
            raise KeyboardInterrupt

    with pytest.raises(DeviceError) as caught:
        home.pull(Pulling(tell=stop))
    assert (caught.value.code, caught.value.exit_code) == ("INTERRUPTED", 75)
    assert field_.state.current is None and field_.state.last_pull["code"] == "INTERRUPTED"
    assert home.pull().outcome == "updated"
