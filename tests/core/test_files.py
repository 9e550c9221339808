"""Atomic files: the old bytes or the new ones, with the right mode from the first byte."""

import os
import stat
from pathlib import Path

import pytest

from collegium.core.files import remove_partials, write_atomic


def test_writes_chunks_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomic(path, b"a", memoryview(b"b"))
    assert path.read_bytes() == b"ab"
    write_atomic(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    write_atomic(path, b"newer")  # the leftover of the failed try is in nobody's way
    assert path.read_bytes() == b"newer"


def test_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.partial").write_bytes(b"half")
    (tmp_path / "kept").write_bytes(b"whole")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept"]
