"""A process killed while it makes its key: the next one finds a whole key or none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collegium.core.errors import OutputExists
from collegium.core.signing import generate_key, load_or_create, load_private, save_private

CRASHES = {
    "while writing": "os.fdopen",
    "while syncing": "os.fsync",
    "before it has its name": "os.link",
}


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.parametrize("call", CRASHES.values(), ids=CRASHES.keys())
def test_killed_while_a_key_is_made(tmp_path: Path, call: str) -> None:
    path = tmp_path / "keys" / "site.pem"
    code = (
        "import os, signal, sys, pathlib\n"
        "from collegium.core.signing import load_or_create\n"
        f"{call} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "load_or_create(pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    key = load_or_create(path)
    assert load_private(path).private_bytes_raw() == key.private_bytes_raw()
    assert [entry.name for entry in path.parent.iterdir()] == ["site.pem"]


def test_a_second_process_takes_the_first_ones_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw no file; the one that comes second must not raise, nor replace the key."""
    path = tmp_path / "site.pem"
    first = generate_key()
    seen: list[bool] = []
    exists = Path.exists

    def race(self: Path, **options: bool) -> bool:
        if self == path and not seen:
            seen.append(True)
            save_private(first, path)
            return False
        return exists(self, **options)

    monkeypatch.setattr(Path, "exists", race)
    assert load_or_create(path).private_bytes_raw() == first.private_bytes_raw()


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "site.pem"
    save_private(generate_key(), path)
    before = path.read_bytes()
    with pytest.raises(OutputExists):
        save_private(generate_key(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.pem"]
