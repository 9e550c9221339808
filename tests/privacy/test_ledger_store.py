"""The file under a ledger: one writer, one schema, and a log that is folded in at opening."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collegium.core.errors import Interrupted, LedgerTampered, MissingInput, Refused
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import generate_key, load_or_create
from collegium.privacy.ledger import Ledger, open_readonly, read_rows

Make = Callable[..., MechanismSpec]
KEY = generate_key()
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")


def ledger(path: Path) -> Ledger:
    """The ledger of a file."""
    return Ledger(path, "cardiology", BUDGET, KEY)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    first = ledger(path)
    with pytest.raises(Refused, match=r"open elsewhere.*Cure"):
        ledger(path)
    with open_readonly(path) as connection:  # readers are let in
        assert len(read_rows(connection)) == 1
    first.close()
    again = ledger(path)
    again.close()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path, pem = tmp_path / "l.sqlite", tmp_path / "key.pem"
    key = load_or_create(pem)
    code = (
        "import os, sys, pathlib\n"
        "from collegium.core.mechanism import Budget\n"
        "from collegium.core.signing import load_private\n"
        "from collegium.privacy.ledger import Ledger\n"
        "budget = Budget(epsilon=3.0, delta=1e-5, unit='record', relation='add-or-remove-one')\n"
        "key = load_private(pathlib.Path(sys.argv[2]))\n"
        "book = Ledger(pathlib.Path(sys.argv[1]), 'cardiology', budget, key)\n"
        "book.release(model_sha256='m')\n"
        "print(book.head, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(pem)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        head = other.stdout.readline().strip()
        with pytest.raises(Refused, match="open elsewhere"):
            Ledger(path, "cardiology", BUDGET, key)
        other.kill()
    again = Ledger(path, "cardiology", BUDGET, key)
    assert again.head == head
    again.close()


def test_a_writer_that_ignores_the_lock_is_noticed(tmp_path: Path, make_spec: Make) -> None:
    """Whoever deletes the lock file gets a second writer; the first to notice stops."""
    path = tmp_path / "l.sqlite"
    first = ledger(path)
    (tmp_path / "l.sqlite.lock").unlink()
    second = ledger(path)
    second.release(model_sha256="m")
    with pytest.raises(Refused, match="another process wrote"):
        first.reserve(job="j", round=1, attempt=1, base_sha256="b", spec=make_spec())
    with pytest.raises(Refused, match="closed"):
        first.release(model_sha256="n")
    second.close()


def altered(path: Path, *statements: str) -> None:
    """Change a ledger file as an administrator can."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TRIGGER entries_no_update"],
        ["DROP TRIGGER entries_in_order", "CREATE TRIGGER entries_in_order BEFORE INSERT ON"
         " entries BEGIN SELECT 1; END"],
        ["CREATE TRIGGER more AFTER INSERT ON entries BEGIN SELECT 1; END"],
        ["CREATE TABLE more (x)"],
        ["ALTER TABLE entries RENAME TO real", "CREATE VIEW entries AS SELECT * FROM real",
         "CREATE TRIGGER swallow INSTEAD OF INSERT ON entries BEGIN SELECT 1; END"],
        ["DROP TABLE entries"],
    ],
)  # fmt: skip
def test_another_schema_is_refused(tmp_path: Path, statements: list[str]) -> None:
    """A view with a trigger of its own could swallow every acknowledged row."""
    path = tmp_path / "l.sqlite"
    ledger(path).close()
    altered(path, *statements)
    if statements == ["DROP TABLE entries"]:  # a file as before its first entry
        fresh = ledger(path)
        assert len(fresh.entries()) == 1
        fresh.close()
        return
    with pytest.raises(LedgerTampered, match="table and triggers"):
        ledger(path)


def test_another_version_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    ledger(path).close()
    altered(path, "PRAGMA user_version = 1")
    with pytest.raises(Refused, match="format 1"):
        ledger(path)


def test_an_emptied_ledger_is_no_new_one(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    ledger(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    (trigger,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'entries_no_delete'"
    ).fetchone()
    for statement in ("DROP TRIGGER entries_no_delete", "DELETE FROM entries", trigger):
        connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerTampered, match="no entry"):
        ledger(path)


def test_a_ledger_that_does_not_verify_stays_as_it_was_found(
    tmp_path: Path, make_spec: Make
) -> None:
    """Evidence: the log that a crash left is not folded into a file that is refused."""
    live, path = tmp_path / "live.sqlite", tmp_path / "found.sqlite"
    book = ledger(live)
    book.reserve(job="j", round=1, attempt=1, base_sha256="b", spec=make_spec())
    for end in ("", "-wal"):
        shutil.copyfile(f"{live}{end}", f"{path}{end}")
    book.close()
    before = path.read_bytes()
    with pytest.raises(LedgerTampered):
        Ledger(path, "cardiology", BUDGET, generate_key())
    assert path.read_bytes() == before
    whole = ledger(path)  # and the right key reads all of it
    assert [entry.kind for entry in whole.entries()] == ["genesis", "reserve"]
    whole.close()


def test_a_journal_that_a_crash_left_is_rolled_back(tmp_path: Path) -> None:
    """Seen once in 1,500 kills, in the switch to the log: a reader alone may not mend it."""
    live, path = tmp_path / "live.sqlite", tmp_path / "found.sqlite"
    book = ledger(live)
    book.close()
    connection = sqlite3.connect(live, isolation_level=None)
    for statement in ("journal_mode=DELETE", "cache_size=1"):
        connection.execute(f"PRAGMA {statement}")
    connection.execute("BEGIN IMMEDIATE")
    for seq in range(1, 60):
        row = (seq, "", "x" * 3000, str(seq), b"")
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
    for end in ("", "-journal"):  # as a crash in the middle would leave both
        shutil.copyfile(f"{live}{end}", f"{path}{end}")
    connection.execute("ROLLBACK")
    connection.close()
    with pytest.raises(Interrupted, match="readonly"), open_readonly(path) as reader:
        read_rows(reader)
    again = ledger(path)
    assert again.entries() == book.entries()
    again.close()


def test_a_file_that_cannot_be_opened_is_no_tampering(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(MissingInput), open_readonly(tmp_path / "folder.sqlite"):
        pass
    with pytest.raises(Interrupted, match="Unable to open"):
        ledger(tmp_path / "folder.sqlite")
    (tmp_path / "short.sqlite").write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(LedgerTampered):
        ledger(tmp_path / "short.sqlite")
