"""The anchor: it remembers the newest entry, and whatever is older, forked or gone is noticed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import LedgerRolledBack, LedgerTampered, Refused
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import generate_key
from collegium.privacy.ledger import Ledger
from collegium.privacy.ledger_anchor import FORMAT, Anchor

Make = Callable[..., MechanismSpec]
KEY = generate_key()
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")


def ledger(folder: Path, *, anchored: bool = True, key: Any = KEY) -> Ledger:
    """The ledger of a folder, its anchor in another."""
    anchor = folder / "elsewhere" / "l.anchor" if anchored else None
    return Ledger(folder / "l.sqlite", "cardiology", BUDGET, key, anchor=anchor)


def grown(folder: Path, models: int, **options: Any) -> list[str]:
    """Append releases; return the heads of all entries."""
    book = ledger(folder, **options)
    have = len(book.entries())
    for number in range(models):
        book.release(model_sha256=f"m{have + number}")
    heads = [entry.hash for entry in book.entries()]
    book.close()
    return heads


def remembered(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "elsewhere" / "l.anchor").read_bytes())


def test_it_remembers_each_entry_before_the_append_returns(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    for number in (1, 2):
        book.reserve(job="j", round=number, attempt=1, base_sha256="b", spec=make_spec())
        entry = book.entries()[-1]
        assert remembered(tmp_path) == {
            "format": FORMAT, "asset": "cardiology", "seq": number, "hash": entry.hash,
            "signature": entry.signature.hex(),
        }  # fmt: skip
        KEY.public_key().verify(entry.signature, entry.hash.encode())
    book.close()
    assert not list((tmp_path / "elsewhere").glob("*.partial"))


def test_an_older_copy_is_rolled_back(tmp_path: Path) -> None:
    grown(tmp_path, 2)
    shutil.copyfile(tmp_path / "l.sqlite", tmp_path / "old")
    grown(tmp_path, 1)
    shutil.copyfile(tmp_path / "old", tmp_path / "l.sqlite")
    for _ in range(2):  # and stays so: an opening that was refused moves nothing
        with pytest.raises(LedgerRolledBack, match="entry 3"):
            ledger(tmp_path)


def test_a_deleted_ledger_is_rolled_back(tmp_path: Path) -> None:
    grown(tmp_path, 1)
    (tmp_path / "l.sqlite").unlink()
    with pytest.raises(LedgerRolledBack):
        ledger(tmp_path)
    assert not (tmp_path / "l.sqlite").exists()


def test_a_fork_is_rolled_back(tmp_path: Path) -> None:
    grown(tmp_path, 2)
    shutil.copyfile(tmp_path / "l.sqlite", tmp_path / "old")
    grown(tmp_path, 3)
    (tmp_path / "l.sqlite").unlink()
    shutil.copyfile(tmp_path / "old", tmp_path / "l.sqlite")
    grown(tmp_path, 5, anchored=False)  # longer than what the anchor has seen, but another
    with pytest.raises(LedgerRolledBack):
        ledger(tmp_path)


def test_an_anchor_that_is_behind_catches_up(tmp_path: Path) -> None:
    """A crash between the two writes: the entry counts, though it was never acknowledged."""
    grown(tmp_path, 1)
    heads = grown(tmp_path, 3, anchored=False)
    assert remembered(tmp_path)["hash"] == heads[1]
    ledger(tmp_path).close()
    assert remembered(tmp_path)["hash"] == heads[-1]


def test_a_crash_after_the_first_entry_and_before_its_anchor(tmp_path: Path) -> None:
    ledger(tmp_path, anchored=False).close()
    ledger(tmp_path).close()
    assert remembered(tmp_path)["seq"] == 0


def test_a_missing_anchor_is_refused(tmp_path: Path) -> None:
    grown(tmp_path, 1)
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=r"missing.*mount its volume"):
        ledger(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_an_anchor_of_another_key_is_tampered(tmp_path: Path) -> None:
    grown(tmp_path, 1)
    grown(tmp_path / "theirs", 1, key=generate_key())
    shutil.copyfile(tmp_path / "theirs/elsewhere/l.anchor", tmp_path / "elsewhere/l.anchor")
    with pytest.raises(LedgerTampered, match="not signed"):
        ledger(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"hash": "sha256:" + "0" * 64}, {"signature": "00" * 64}, {"signature": "zz"},
        {"seq": "1"}, {"seq": -1}, {"seq": True}, {"format": "another"}, {"more": 1},
        {"signature": None}, {"hash": 7},
    ],
)  # fmt: skip
def test_a_changed_anchor_is_tampered(tmp_path: Path, change: dict[str, Any]) -> None:
    grown(tmp_path, 1)
    path = tmp_path / "elsewhere" / "l.anchor"
    path.write_text(json.dumps(remembered(tmp_path) | change))
    with pytest.raises(LedgerTampered):
        ledger(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff" * 10, b"9" * 9000])
def test_rubbish_is_no_anchor(tmp_path: Path, raw: bytes) -> None:
    grown(tmp_path, 1)
    (tmp_path / "elsewhere" / "l.anchor").write_bytes(raw)
    with pytest.raises(LedgerTampered, match="no ledger anchor"):
        ledger(tmp_path)


def test_another_seq_of_the_same_ledger_is_rolled_back(tmp_path: Path) -> None:
    grown(tmp_path, 3)
    path = tmp_path / "elsewhere" / "l.anchor"
    path.write_text(json.dumps(remembered(tmp_path) | {"seq": 2}))
    with pytest.raises(LedgerRolledBack):
        ledger(tmp_path)


def test_without_its_volume_nothing_is_acknowledged(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    shutil.rmtree(tmp_path / "elsewhere")
    known = book.entries()
    with pytest.raises(OSError, match="vanished"):
        book.reserve(job="j", round=1, attempt=1, base_sha256="b", spec=make_spec())
    assert book.entries() == known
    assert not (tmp_path / "elsewhere").exists()  # it is not made on the wrong volume
    with pytest.raises(Refused, match="closed"):
        book.release(model_sha256="m")
    book.close()
    again = ledger(tmp_path, anchored=False)
    assert again.entries()[-1].kind == "reserve"  # written, never acknowledged: it counts
    assert not again.reserve(job="j", round=1, attempt=1, base_sha256="b", spec=make_spec())
    again.close()


def test_the_anchor_follows_a_change_of_key(tmp_path: Path) -> None:
    book, new = ledger(tmp_path), generate_key()
    book.rotate(new)
    book.close()
    ledger(tmp_path, key=new).close()  # the entry of the handover is signed by the old key
    grown(tmp_path, 1, key=new)
    assert Anchor(tmp_path / "elsewhere" / "l.anchor").read() is not None
    ledger(tmp_path, key=new).close()
