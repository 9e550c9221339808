"""Fingerprints: the same records under another name, order, encoding or split are the same."""

import io
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collegium.core.errors import InvalidInput, LedgerTampered, Refused
from collegium.privacy.fingerprint import Register, fingerprint, record_digests

SALT = bytes(range(32))
FEATURES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 4)),
    elements=st.floats(width=32, allow_subnormal=False),
)  # fmt: skip


def records(count: int = 20, *, seed: int = 3) -> tuple[Any, Any]:
    """Some records: (count, 3) features and labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    return x, rng.integers(0, 2, count)


def name(x: Any, y: Any) -> str:
    return fingerprint(record_digests(x, y, SALT)).digest


@given(x=FEATURES, data=st.data())
@settings(deadline=None, max_examples=60)
def test_order_split_and_encoding_do_not_matter(x: Any, data: Any) -> None:
    y = np.arange(len(x)) % 3
    known = record_digests(x, y, SALT)
    order = data.draw(st.permutations(range(len(x))))
    cut = data.draw(st.integers(0, len(x)))
    moved, labels = x[order].astype(np.float64), y[order].astype(np.float32)
    parts = [
        digest
        for part in (slice(0, cut), slice(cut, None))
        for digest in record_digests(moved[part], labels[part], SALT)
    ]
    assert sorted(parts) == sorted(known)
    assert fingerprint(parts) == fingerprint(known)
    assert [parts[order.index(row)] for row in range(len(x))] == known


def test_files_of_other_forms_hold_the_same_records() -> None:
    x, y = records()
    text = io.StringIO()
    np.savetxt(text, np.column_stack([x, y]), delimiter=",", fmt="%.9g")
    table = np.loadtxt(io.StringIO(text.getvalue()), delimiter=",")
    binary = io.BytesIO()
    np.savez(binary, x=np.asfortranarray(x), y=y.astype(np.uint8))
    loaded = np.load(io.BytesIO(binary.getvalue()))
    assert name(table[:, :3], table[:, 3]) == name(x, y) == name(loaded["x"], loaded["y"])
    assert name(x.astype(">f8"), y.astype(bool)) == name(x, y)
    assert name(x.reshape(-1, 1, 3), y[:, None]) == name(x, y)


def test_one_zero_one_nan_one_infinity() -> None:
    odd = np.array([[0.0, np.nan], [np.inf, 1.0]])
    other = np.array([[-0.0, -np.nan], [1e300, 1.0]])
    other_nan = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)
    other[0, 1] = other_nan[0]
    labels = np.array([0.0, 1.0])
    assert name(odd, labels) == name(other, np.array([-0.0, 1.0]))


def test_content_label_and_salt_matter() -> None:
    x, y = records()
    known = record_digests(x, y, SALT)
    assert len(set(known)) == 20 and {len(digest) for digest in known} == {32}
    assert set(record_digests(x, 1 - y, SALT)).isdisjoint(known)
    assert set(record_digests(x + np.float32(1), y, SALT)).isdisjoint(known)
    assert set(record_digests(x, y, bytes(32))).isdisjoint(known)
    for other in (known[1:], [*known, known[0]]):  # a multiset: twice the same is another
        assert fingerprint(other) != fingerprint(known)


def test_a_hash_by_hand() -> None:
    """One record of two features and a label: keyed BLAKE2b over its 16 bytes."""
    import hashlib
    import struct

    x, y = np.array([[1.5, -2.0]]), np.array([3])
    content = struct.pack("<ffd", 1.5, -2.0, 3.0)
    expected = hashlib.blake2b(
        b"collegium/fingerprint/1" + content, key=SALT, digest_size=32
    ).digest()
    assert record_digests(x, y, SALT) == [expected]
    named = hashlib.sha256(b"collegium/fingerprint/1" + expected).hexdigest()
    assert fingerprint([expected]).digest == "sha256:" + named


def test_no_records_and_no_numbers() -> None:
    assert record_digests(np.zeros((0, 3)), np.zeros(0), SALT) == []
    with pytest.raises(InvalidInput, match="differ in number"):
        record_digests(np.zeros((2, 3)), np.zeros(1), SALT)
    with pytest.raises(InvalidInput, match="numbers"):
        record_digests(np.array([["a"]]), np.zeros(1), SALT)


def test_the_register_knows_whose_each_record_is(tmp_path: Path) -> None:
    register = Register(tmp_path / "site" / "records.sqlite")
    assert stat.S_IMODE((tmp_path / "site" / "records.sqlite").stat().st_mode) == 0o600
    x, y = records()
    digests = record_digests(x, y, register.salt)
    register.claim("cardiology", digests)
    register.claim("cardiology", digests)
    register.claim("cardiology", digests[5:])  # a part of it, or a grown export, is its own
    more, labels = records(4, seed=9)
    others = record_digests(more, labels, register.salt)
    register.claim("cardiology", [*digests, *others[:1]])
    for theirs in (digests, digests[:1], [*others[1:], digests[7]], others[:1]):
        with pytest.raises(Refused, match="'cardiology'") as caught:
            register.claim("oncology", theirs)
        message = caught.value.message()
        assert not any(character.isdigit() for character in message)  # no record and no count
        with pytest.raises(Refused):
            register.check("oncology", theirs)
    register.claim("oncology", others[1:])  # what was refused has left no trace
    with pytest.raises(Refused, match="'oncology'"):
        register.claim("cardiology", others[1:2])


def test_checking_claims_nothing(tmp_path: Path) -> None:
    register = Register(tmp_path / "r.sqlite")
    x, y = records()
    digests = record_digests(x, y, register.salt)
    register.check("cardiology", digests)
    register.claim("oncology", digests)
    with pytest.raises(Refused):
        register.check("cardiology", digests)


def test_the_register_outlives_its_process_and_keeps_its_salt(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    first, other = Register(path), Register(tmp_path / "another.sqlite")
    assert len(first.salt) == 32 and first.salt != other.salt
    x, y = records()
    first.claim("cardiology", record_digests(x, y, first.salt))
    again = Register(path)
    assert again.salt == first.salt
    with pytest.raises(Refused):
        again.claim("oncology", record_digests(x[::-1], y[::-1], again.salt))


def test_rubbish_is_no_register(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_bytes(b"rubbish" * 500)
    with pytest.raises(LedgerTampered, match="register"):
        Register(tmp_path / "r.sqlite")


def test_a_register_that_another_process_holds_is_in_use_and_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.sqlite"
    register = Register(path)
    monkeypatch.setattr("collegium.privacy.fingerprint._WAIT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for act in (
            lambda: Register(path),
            lambda: register.check("ward", []),
            lambda: register.bind("ward", "g"),
            lambda: register.ledger_of("ward"),
        ):
            with pytest.raises(Refused, match="in use"):
                act()
        other.execute("ROLLBACK")
    register.bind("ward", "g")
    assert register.ledger_of("ward") == "g"
