"""One row: canonical, hashed by hand, signed by the key in force, and nothing else is a row."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.digest import canonical_bytes, sha256_hex
from collegium.core.errors import LedgerTampered
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import fingerprint, generate_key
from collegium.privacy.ledger import Ledger, open_readonly, read_rows
from collegium.privacy.ledger_rows import (
    FIELDS,
    GENESIS_HEAD,
    Row,
    rotation_message,
    row_hash,
    signer_of,
    verify_chain,
)

Make = Callable[..., MechanismSpec]
KEY, NEXT = generate_key(), generate_key()
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")
DOMAIN = b"collegium/ledger/2"


def rows(path: Path, make_spec: Make) -> list[Row]:
    """A ledger with one row of every kind, in order."""
    book = Ledger(path / "l.sqlite", "cardiology", BUDGET, KEY)
    book.reserve(job="j", round=1, attempt=1, base_sha256="b", spec=make_spec())
    book.commit(job="j", round=1, attempt=1, update_sha256="u")
    book.reserve(job="j", round=2, attempt=1, base_sha256="b", spec=make_spec())
    book.abort(job="j", round=2, attempt=1, note="ü")
    book.release(model_sha256="m")
    peer, message = generate_key(), book.head.encode()
    book.witness(head=book.head, key=peer.public_key(), message=message,
                 signature=peer.sign(message))  # fmt: skip
    book.rotate(NEXT)
    book.close()
    lower = Budget(epsilon=2.0, delta=1e-5, unit="record", relation="add-or-remove-one")
    Ledger(path / "l.sqlite", "cardiology", lower, NEXT).close()
    with open_readonly(path / "l.sqlite") as connection:
        return read_rows(connection)


def chained(bodies: Iterable[Any], keys: Iterable[Ed25519PrivateKey]) -> list[Row]:
    """Rows of these bodies, hashed and signed rightly."""
    made: list[Row] = []
    head = GENESIS_HEAD
    for seq, (body, key) in enumerate(zip(bodies, keys, strict=True)):
        text = body if isinstance(body, bytes) else canonical_bytes(body)
        digest = row_hash(seq, head, text)
        made.append((seq, head, text.decode(), digest, key.sign(digest.encode())))
        head = digest
    return made


def test_hashes_and_signatures_by_hand(tmp_path: Path, make_spec: Make) -> None:
    found = rows(tmp_path, make_spec)
    head = GENESIS_HEAD
    for number, (seq, prev, body, digest, signature) in enumerate(found):
        expected = sha256_hex(
            len(DOMAIN).to_bytes(4, "big") + DOMAIN + number.to_bytes(8, "big")
            + head.encode() + body.encode()
        )  # fmt: skip
        assert (seq, prev, digest) == (number, head, expected)
        text = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"),
                          ensure_ascii=False)  # fmt: skip
        assert body == text
        signer = NEXT if number > 7 else KEY
        signer.public_key().verify(signature, digest.encode())
        head = digest
    entries = verify_chain(found, NEXT.public_key())
    assert {entry.kind for entry in entries} == set(FIELDS)
    for entry, (_, _, body, *_) in zip(entries, found, strict=True):
        assert set(json.loads(body)) == {"kind", "at", "asset", *FIELDS[entry.kind]}
    assert len(verify_chain(found, None)) == len(found)
    assert signer_of(entries, 7) == fingerprint(KEY.public_key())
    assert signer_of(entries, 8) == fingerprint(NEXT.public_key())


def test_the_key_must_be_the_one_in_force(tmp_path: Path, make_spec: Make) -> None:
    found = rows(tmp_path, make_spec)
    for other in (KEY, generate_key()):
        with pytest.raises(LedgerTampered, match="not signed by this site's key"):
            verify_chain(found, other.public_key())
    before = found[:7]
    assert len(verify_chain(before, KEY.public_key())) == 7
    with pytest.raises(LedgerTampered):
        verify_chain(before, NEXT.public_key())


@pytest.mark.parametrize("at", range(9))
def test_every_signature_counts(tmp_path: Path, make_spec: Make, at: int) -> None:
    found = rows(tmp_path, make_spec)
    wrong = NEXT if at <= 7 else KEY
    found[at] = (*found[at][:4], wrong.sign(found[at][3].encode()))
    with pytest.raises(LedgerTampered, match=f"entry {at} is not signed"):
        verify_chain(found, NEXT.public_key())


def test_a_handover_needs_both_keys(tmp_path: Path, make_spec: Make) -> None:
    found = rows(tmp_path, make_spec)
    bodies = [json.loads(row[2]) for row in found]
    thief = generate_key()
    name = fingerprint(thief.public_key())
    message = rotation_message("cardiology", 7, found[7][1], name)
    for proof, old in ((KEY.sign(message), KEY), (thief.sign(message), thief)):
        forged = [*bodies[:7], bodies[7] | {"public_key": name, "proof": proof.hex()}]
        with pytest.raises(LedgerTampered, match="entry 7 is not signed"):
            verify_chain(chained(forged, [KEY] * 7 + [old]), thief.public_key())
    elsewhere = rotation_message("cardiology", 6, found[7][1], name)
    forged = [*bodies[:7], bodies[7] | {"public_key": name, "proof": thief.sign(elsewhere).hex()}]
    with pytest.raises(LedgerTampered, match="entry 7"):
        verify_chain(chained(forged, [KEY] * 8), thief.public_key())


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a field more": lambda body: body | {"more": 1},
    "a field less": lambda body: {k: v for k, v in body.items() if k != "rng"},
    "a text for a count": lambda body: body | {"round": "1"},
    "a negative count": lambda body: body | {"steps": -1},
    "a truth for a count": lambda body: body | {"attempt": True},
    "a number for a text": lambda body: body | {"job": 1},
    "no mechanism": lambda body: body | {"spec": None},
    "no claim": lambda body: body | {"claim": None},
    "half a mechanism": lambda body: body | {"spec": {"unit": "record"}},
    "an impossible mechanism": lambda body: body | {"spec": body["spec"] | {"sampling_rate": 2.0}},
    "a list for a mechanism": lambda body: body | {"spec": sorted(body["spec"])},
    "another kind": lambda body: body | {"kind": "refund"},
    "a list for a kind": lambda body: body | {"kind": ["reserve"]},
    "a mechanism that is a text": lambda body: body | {"spec": "poisson"},
    "versions of numbers": lambda body: body | {"versions": {"python": 3}},
    "other spacing": lambda body: json.dumps(body).encode(),
    "an infinite claim": lambda body: canonical_bytes(body).replace(b'"steps":1', b'"steps":1e999'),
    "not a number": lambda body: canonical_bytes(body).replace(b'"steps":1', b'"steps":NaN'),
    "a list": lambda body: [body],
    "no JSON": lambda body: b"{",
    "twice the same field": lambda body: canonical_bytes(body)[:-1] + b',"rng":""}',
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_well_signed_row_of_nonsense_is_refused(
    tmp_path: Path, make_spec: Make, change: Callable[[dict[str, Any]], Any]
) -> None:
    bodies = [json.loads(row[2]) for row in rows(tmp_path, make_spec)[:2]]
    assert len(verify_chain(chained(bodies, [KEY] * 2), KEY.public_key())) == 2
    bodies[1] = change(bodies[1])
    for key in (KEY.public_key(), None):
        with pytest.raises(LedgerTampered, match="no entry of this version"):
            verify_chain(chained(bodies, [KEY] * 2), key)


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    text = raw.decode("utf-8", "replace")
    digest = row_hash(0, GENESIS_HEAD, text.encode())
    with pytest.raises(LedgerTampered):
        verify_chain([(0, GENESIS_HEAD, text, digest, b"")], None)


@pytest.mark.parametrize("column", range(5))
def test_columns_of_other_types_are_refused(tmp_path: Path, make_spec: Make, column: int) -> None:
    """A table without STRICT can hold anything anywhere."""
    found = rows(tmp_path, make_spec)
    for value in (None, 1.5, "x" if column in (0, 4) else b"x"):
        row: Any = list(found[1])
        row[column] = value
        with pytest.raises(LedgerTampered):
            verify_chain([found[0], tuple(row)], KEY.public_key())


def test_it_begins_with_a_genesis(tmp_path: Path, make_spec: Make) -> None:
    bodies = [json.loads(row[2]) for row in rows(tmp_path, make_spec)]
    with pytest.raises(LedgerTampered, match="entry 0"):
        verify_chain(chained(bodies[1:2], [KEY]), KEY.public_key())
    assert verify_chain([], KEY.public_key()) == []
