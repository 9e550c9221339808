"""Killed writers leave folders behind: the next one clears them, and never those of live ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collegium.edge.bundle_place import clear_leftovers, new_folder, put_in_place

posix = pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on Windows")

WRITER = """
import os, sys
from pathlib import Path
from collegium.edge import bundle_place as room
out = Path(sys.argv[1])
if sys.argv[2] == "between":  # both renames: the old one stands aside, the new one is not there
    rename = Path.rename
    def killed(self, target):
        if target == out:
            os.kill(os.getpid(), 9)
        return rename(self, target)
    Path.rename = killed
with room.new_folder(out) as folder:
    (folder / "bundle.sig").write_text("new")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), 9)
    if sys.argv[2] == "waiting":
        print("ready", flush=True)
        sys.stdin.read()
    room.put_in_place(folder, out)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(out: Path, content: str) -> None:
    with new_folder(out) as folder:
        (folder / "bundle.sig").write_text(content)
        put_in_place(folder, out)


@posix
@pytest.mark.parametrize("moment", ["writing", "between"])
def test_what_a_killed_writer_left_is_cleared_and_the_old_one_stays(
    moment: str, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    write(out, "old")
    done = subprocess.run([sys.executable, "-c", WRITER, str(out), moment], check=False)
    assert done.returncode == -9
    assert len(names(tmp_path)) == 2
    clear_leftovers(out)
    assert names(tmp_path) == ["b"]
    assert (out / "bundle.sig").read_text() == "old"
    write(out, "newer")
    assert names(tmp_path) == ["b"] and (out / "bundle.sig").read_text() == "newer"


@posix
def test_a_live_writer_keeps_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "b"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(out), "waiting"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        write(out, "quicker")
        assert len(names(tmp_path)) == 2
        writer.stdin.close()
        assert writer.wait() == 0
    assert names(tmp_path) == ["b"] and (out / "bundle.sig").read_text() == "new"


def test_where_folders_cannot_be_locked_age_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    old, young = tmp_path / ".b.new.old", tmp_path / ".b.new.young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == [".b.new.young"]


def test_nothing_else_beside_it_is_touched(tmp_path: Path) -> None:
    mine = tmp_path / ".b.notes"
    mine.mkdir()
    (tmp_path / ".b.new.file").write_text("a file, no folder")
    (tmp_path / ".other.new.x").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    if sys.platform != "win32":
        (tmp_path / ".b.new.link").symlink_to(elsewhere)
    before = names(tmp_path)
    write(tmp_path / "b", "x")
    assert names(tmp_path) == sorted([*before, "b"])
    assert (elsewhere / "kept").is_file()
