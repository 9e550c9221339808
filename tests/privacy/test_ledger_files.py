"""A ledger's files: opened for its records, backed up, restored, exported."""

import csv
import io
import json
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import (
    InvalidInput,
    LedgerRolledBack,
    LedgerTampered,
    MissingInput,
    OutputExists,
    Refused,
)  # fmt: skip
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import fingerprint, generate_key, open_envelope
from collegium.privacy.fingerprint import (
    Export,
    Fingerprint,
    Register,
    found_digests,
    record_digests,
)
from collegium.privacy.ledger import Ledger
from collegium.privacy.ledger_files import (
    adopt_anchor,
    backup,
    export_csv,
    export_dsse,
    export_html,
    export_jsonl,
    open_for_records,
    restore,
)

Make = Callable[..., MechanismSpec]
KEY = generate_key()
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")


def ledger(folder: Path, **options: Any) -> Ledger:
    return Ledger(folder / "l.sqlite", "cardiology", BUDGET, KEY, **options)


def spent(book: Ledger, spec: MechanismSpec, *rounds: int) -> None:
    for number in rounds:
        book.reserve(job="=j", round=number, attempt=1, base_sha256="b", spec=spec)


def records(count: int = 12, seed: int = 3) -> dict[str, Any]:
    """Some records, as ``open_for_records`` takes them."""
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(count, 3)), "y": rng.integers(0, 2, count)}


def export(register: Register, x: Any, y: Any, ids: Any = None) -> Export:
    """Records by digest, as a site makes them; ``ids`` (n, 16) where a reader found them."""
    return Export(
        encoded=record_digests(x, y, register.salt),
        found=None if ids is None else found_digests(ids, register.salt),
    )


def opened(folder: Path, asset: str = "cardiology", **options: Any) -> Ledger:
    """The ledger of an asset of one site."""
    register = Register(folder / "register.sqlite")
    given = {**records(), **options}
    held = export(register, given.pop("x"), given.pop("y"), given.pop("ids", None))
    path = folder / f"{asset}.sqlite"
    return open_for_records(path, asset, BUDGET, KEY, register=register, export=held, **given)


def ids(count: int = 12, seed: int = 3) -> Any:
    """What a reader says that some records are."""
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def test_the_same_file_under_another_plan_is_the_same_asset(tmp_path: Path) -> None:
    """Another encoding (a feature less) gives other arrays, of the same identities."""
    opened(tmp_path, ids=ids()).close()
    fewer = {"x": records()["x"][:, :2], "y": records()["y"], "ids": ids()}
    with pytest.raises(Refused, match="no fresh budget"):
        opened(tmp_path, "renamed", **fewer)
    with pytest.raises(Refused, match="no fresh budget"):  # one of its records is enough
        opened(tmp_path, "renamed", **{key: value[:1] for key, value in fewer.items()})
    book = opened(tmp_path, **fewer)
    assert [entry.kind for entry in book.entries()] == ["genesis"]
    book.close()


def test_the_same_values_in_another_format_are_the_same_asset(tmp_path: Path) -> None:
    """Other identities (arrays have no column names), but what the plan reads is the same."""
    opened(tmp_path, ids=ids()).close()
    with pytest.raises(Refused, match="no fresh budget"):
        opened(tmp_path, "renamed", ids=ids(seed=4))
    for _ in range(2):
        book = opened(tmp_path, ids=ids(seed=4))
        assert [entry.kind for entry in book.entries()] == ["genesis", "policy"]
        book.close()
    fewer = {"x": records()["x"][:, :2], "y": records()["y"], "ids": ids(seed=4)}
    opened(tmp_path, **fewer).close()  # and from now on that file is known by itself
    with pytest.raises(Refused, match="unknown export"):
        opened(tmp_path, x=records()["x"] + 1, y=records()["y"], ids=ids(seed=5))


@pytest.mark.parametrize("lost", [False, True])
def test_a_ledger_of_format_1_is_opened_and_learns_what_was_found(
    tmp_path: Path, lost: bool
) -> None:
    opened(tmp_path).close()
    if lost:  # a crash between the ledger's first entry and the register's claim
        with sqlite3.connect(tmp_path / "register.sqlite") as database:
            database.execute("DELETE FROM exports")
            database.execute("DELETE FROM records")
    book = opened(tmp_path, ids=ids())
    named = [entry.records for entry in book.entries()]
    assert len(set(named)) == 2 and all(name.startswith("sha256:") for name in named)
    book.close()
    other = {"x": records()["x"] + 1, "y": records()["y"], "ids": ids()}
    opened(tmp_path, **other).close()
    with pytest.raises(Refused, match="no fresh budget"):
        opened(tmp_path, "renamed", **other)


def test_a_renamed_asset_gets_no_fresh_budget(tmp_path: Path) -> None:
    opened(tmp_path).close()
    held = records()
    for name, theirs in {
        "new name": held,
        "other order": {"x": held["x"][::-1], "y": held["y"][::-1]},
        "other encoding": {"x": held["x"].astype(np.float32), "y": held["y"].astype(float)},
        "a part": {"x": held["x"][:3], "y": held["y"][:3]},
        "a part among others": {
            key: np.concatenate([held[key][:1], records(seed=9)[key]]) for key in held
        },
    }.items():
        for attach in (False, True):
            with pytest.raises(Refused, match="no fresh budget"):
                opened(tmp_path, "renamed", **theirs, attach=attach, note="mine")
        assert not (tmp_path / "renamed.sqlite").exists(), name
    opened(tmp_path, "renamed", **records(seed=9)).close()


def test_an_asset_has_one_ledger_wherever_it_lies(tmp_path: Path, make_spec: Make) -> None:
    """Another path, or a deleted file, is no second budget: the register knows the first entry."""
    book = opened(tmp_path)
    spent(book, make_spec(), 1)
    for path in (tmp_path / "other.sqlite", tmp_path / "sub" / "l.sqlite"):
        with pytest.raises(Refused, match="another ledger"):
            open_for_records(
                path, "cardiology", BUDGET, KEY,
                register=(register := Register(tmp_path / "register.sqlite")),
                export=export(register, **records()),
            )  # fmt: skip
        assert not path.exists()
    book.close()
    kept = book.path.read_bytes()
    book.path.unlink()
    with pytest.raises(Refused, match="another ledger"):
        opened(tmp_path)
    Ledger(book.path, "cardiology", BUDGET, KEY).close()  # a fresh one put in its place
    with pytest.raises(Refused):
        opened(tmp_path)
    book.path.write_bytes(kept)
    again = opened(tmp_path)
    assert len(again.entries()) == 2
    again.close()


def test_an_unknown_export_waits_for_a_signed_entry(tmp_path: Path, make_spec: Make) -> None:
    book = opened(tmp_path)
    assert book.entries()[0].records.startswith("sha256:")
    spent(book, make_spec(), 1)
    book.close()
    opened(tmp_path).close()
    grown = {key: np.concatenate([records()[key], records(seed=9)[key]]) for key in ("x", "y")}
    with pytest.raises(Refused, match="unknown export"):
        opened(tmp_path, **grown)
    # and what was refused was not claimed: those records may still be another asset's
    Register(tmp_path / "register.sqlite").check("other", [])
    with pytest.raises(InvalidInput, match="note"):
        opened(tmp_path, **grown, attach=True)
    book = opened(tmp_path, **grown, attach=True, note="2025 added, checked by two")
    last = book.entries()[-1]
    assert (last.kind, last.note) == ("policy", "2025 added, checked by two")
    spent(book, make_spec(), 2)
    assert book.spend() == [(make_spec(), 2)]  # it inherits all that was spent before
    book.close()
    opened(tmp_path, **grown).close()
    book = opened(tmp_path)  # the older export is known still
    assert len(book.entries()) == 4
    book.close()
    with pytest.raises(Refused, match="no fresh budget"):
        opened(tmp_path, "other", **records(seed=9))


def test_a_refused_export_claims_no_record(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(Refused, match="unknown export"):
        opened(tmp_path, **records(seed=9))
    opened(tmp_path, "oncology", **records(seed=9)).close()


def test_a_new_ledger_may_be_attached_to_at_once(tmp_path: Path) -> None:
    book = opened(tmp_path, attach=True, note="first")
    assert [entry.kind for entry in book.entries()] == ["genesis"]
    book.close()


def test_a_ledger_that_knows_its_records_charges_for_these_alone(
    tmp_path: Path, make_spec: Make
) -> None:
    known = Fingerprint(digest="sha256:1")
    ledger(tmp_path, records=known).close()
    with pytest.raises(Refused, match="unknown export"):
        ledger(tmp_path, records=Fingerprint(digest="sha256:2"))
    book = ledger(tmp_path)
    with pytest.raises(Refused, match="not shown"):
        spent(book, make_spec(), 1)
    book.attach(Fingerprint(digest="sha256:2"), note="moved")
    book.attach(known, note="again")
    spent(book, make_spec(), 1)
    assert [entry.kind for entry in book.entries()] == ["genesis", "policy", "reserve"]
    book.close()


def test_an_anchor_is_adopted_once(tmp_path: Path, make_spec: Make) -> None:
    book, anchor = ledger(tmp_path), tmp_path / "a" / "l.anchor"
    spent(book, make_spec(), 1)
    book.close()
    with pytest.raises(Refused, match="adopt_anchor"):
        ledger(tmp_path, anchor=anchor)
    with pytest.raises(LedgerTampered):
        adopt_anchor(tmp_path / "l.sqlite", generate_key().public_key(), anchor)
    assert adopt_anchor(tmp_path / "l.sqlite", KEY.public_key(), anchor) == book.head
    ledger(tmp_path, anchor=anchor).close()
    with pytest.raises(Refused, match="already"):
        adopt_anchor(tmp_path / "l.sqlite", KEY.public_key(), anchor)
    (tmp_path / "l.sqlite").unlink()
    ledger(tmp_path).close()
    with pytest.raises(LedgerRolledBack):  # and not to bless an older ledger
        adopt_anchor(tmp_path / "l.sqlite", KEY.public_key(), anchor)


def test_a_backup_of_a_ledger_in_use_is_restored(tmp_path: Path, make_spec: Make) -> None:
    anchor = tmp_path / "a" / "l.anchor"
    book = ledger(tmp_path, anchor=anchor)
    spent(book, make_spec(), 1, 2)
    copy = tmp_path / "copies" / "l.backup"
    assert backup(tmp_path / "l.sqlite", copy) == book.head
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with pytest.raises(OutputExists):
        backup(tmp_path / "l.sqlite", copy)
    before = book.entries()
    book.close()
    with pytest.raises(OutputExists, match="never overwritten"):
        restore(copy, tmp_path / "l.sqlite")
    (tmp_path / "l.sqlite").unlink()
    found = restore(copy, tmp_path / "l.sqlite", anchor=anchor)
    assert (found.seq, found.head, found.behind_anchor) == (2, before[-1].hash, False)
    again = ledger(tmp_path, anchor=anchor)
    assert again.entries() == before
    spent(again, make_spec(), 3)
    again.close()
    (tmp_path / "l.sqlite").unlink()
    assert restore(copy, tmp_path / "l.sqlite", anchor=anchor).behind_anchor
    with pytest.raises(LedgerRolledBack):
        ledger(tmp_path, anchor=anchor)


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_nothing_is_restored_beside_an_old_log(tmp_path: Path, end: str) -> None:
    ledger(tmp_path).close()
    backup(tmp_path / "l.sqlite", tmp_path / "copy")
    (tmp_path / f"new.sqlite{end}").write_bytes(b"old")
    with pytest.raises(OutputExists, match="old"):
        restore(tmp_path / "copy", tmp_path / "new.sqlite")
    assert not (tmp_path / "new.sqlite").exists()


def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.release(model_sha256="m")
    book.close()
    backup(tmp_path / "l.sqlite", tmp_path / "copy")
    raw = (tmp_path / "copy").read_bytes()
    at = raw.index(b'"model_sha256":"m"')
    (tmp_path / "copy").write_bytes(raw[:at] + b'"model_sha256":"n"' + raw[at + 18 :])
    with pytest.raises(LedgerTampered):
        restore(tmp_path / "copy", tmp_path / "new.sqlite")
    assert sorted(path.name for path in tmp_path.glob("new*")) == []
    with pytest.raises(MissingInput):
        restore(tmp_path / "none", tmp_path / "new.sqlite")


def test_exports(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    spent(book, make_spec(), 1)
    book.abort(job="=j", round=1, attempt=1, note="<script>")
    entries = book.entries()
    head, *rows = [json.loads(line) for line in export_jsonl(tmp_path / "l.sqlite").splitlines()]
    assert head == {
        "format": "collegium/ledger-export/2", "asset": "cardiology",
        "public_key": fingerprint(KEY.public_key()),
    }  # fmt: skip
    assert [row["hash"] for row in rows] == [entry.hash for entry in entries]
    assert [row["signature"] for row in rows] == [entry.signature.hex() for entry in entries]
    table = list(csv.DictReader(io.StringIO(export_csv(entries).decode())))
    assert [row["kind"] for row in table] == ["genesis", "reserve", "abort"]
    assert table[1]["job"] == "'=j"  # no spreadsheet takes it for a formula
    assert entries[1].claim is not None
    assert float(table[1]["epsilon claimed"]) == pytest.approx(entries[1].claim.epsilon, abs=1e-6)
    page = export_html(entries).decode()
    assert book.head in page and "&lt;script&gt;" in page and "<script>" not in page
    payload = json.loads(open_envelope(export_dsse(entries, KEY), [KEY.public_key()]))
    (subject,) = payload["subject"]
    assert "sha256:" + subject["digest"]["sha256"] == book.head
    assert payload["predicate"]["seq"] == 2
    book.close()
