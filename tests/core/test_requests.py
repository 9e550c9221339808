"""A request proves that its sender holds every key in it, and says nothing that was changed."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collegium.core.enroll import enroll_member, enroll_site, ensure_site_keys
from collegium.core.errors import InvalidInput, OutputExists, Refused
from collegium.core.public_keys import load_ssh_private, ssh_text
from collegium.core.requests import (
    MemberRequest,
    SiteRequest,
    member_request,
    read_request,
    site_request,
)
from collegium.core.signing import fingerprint, generate_key, load_private

KEY, SUPERNODE = generate_key(), ec.generate_private_key(ec.SECP384R1())
SITE = site_request("north", "North Hospital", KEY, SUPERNODE)
MEMBER = member_request("alice", "Clínica del Mar", KEY)


def test_requests_read_back() -> None:
    public = fingerprint(KEY.public_key())
    assert read_request(MEMBER) == MemberRequest(
        name="alice", institution="Clínica del Mar", public_key=public
    )
    assert read_request(SITE) == SiteRequest(
        name="north",
        institution="North Hospital",
        public_key=public,
        supernode_key=ssh_text(SUPERNODE.public_key()),
    )


@pytest.mark.parametrize(
    ("raw", "change"),
    [
        (SITE, {"institution": "South Hospital"}),
        (SITE, {"name": "south"}),
        (SITE, {"public_key": fingerprint(generate_key().public_key())}),
        (
            SITE,
            {"supernode_key": ssh_text(ec.generate_private_key(ec.SECP384R1()).public_key())},
        ),
        (SITE, {"supernode_key": ssh_text(ec.generate_private_key(ec.SECP256R1()).public_key())}),
        (SITE, {"supernode_proof": "AAAA"}),
        (SITE, {"proof": "AAAA"}),
        (SITE, {"proof": 7}),
        (SITE, {"kind": "member"}),
        (SITE, {"kind": []}),
        (SITE, {"schema": 2}),
        (SITE, {"extra": 1}),
        (MEMBER, {"kind": "site"}),
        (MEMBER, {"institution": "two\nlines"}),
        (MEMBER, {"name": "../alice"}),
    ],
)
def test_a_changed_request_is_refused(raw: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        read_request(json.dumps(json.loads(raw) | change).encode())


def test_a_stolen_key_is_no_proof() -> None:
    """Somebody else's public SuperNode key cannot be enrolled as one's own."""
    other = ec.generate_private_key(ec.SECP384R1())
    mine = json.loads(site_request("evil", "Evil Ltd", KEY, other))
    stolen = mine | {"supernode_key": ssh_text(SUPERNODE.public_key())}
    with pytest.raises(InvalidInput, match=r"has not signed it"):
        read_request(json.dumps(stolen).encode())


@given(place=st.integers(0, len(SITE) * 8 - 1))
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_never_changes_what_a_request_says(place: int) -> None:
    flipped = bytearray(SITE)
    flipped[place // 8] ^= 1 << place % 8
    with suppress(InvalidInput):
        assert read_request(bytes(flipped)) == read_request(SITE)


@given(raw=st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b"{}")
@example(b'{"kind": "site"}')
def test_any_bytes_raise_nothing_but_invalid_input(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_request(raw)


@pytest.mark.parametrize("name", ["", "Alice", "a/b", "..", "a" * 64, "con"])
def test_a_wrong_name_makes_no_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        enroll_member(name, "North", tmp_path / "keys")
    assert not (tmp_path / "keys").exists()


def test_enrolment_keeps_keys_and_repeats_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    made = enroll_site("north", "North Hospital", keys)
    assert sorted(path.name for path in keys.iterdir()) == [
        "north.request.json", "signing.pem", "supernode.key", "supernode.pub",
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in made.private} == {0o600}
    assert keys.stat().st_mode & 0o777 == 0o700
    found = read_request(made.request.read_bytes())
    assert isinstance(found, SiteRequest)
    assert found.public_key == made.fingerprint
    assert found.public_key == fingerprint(load_private(keys / "signing.pem").public_key())
    private = load_ssh_private(keys / "supernode.key")
    assert found.supernode_key == ssh_text(private.public_key())
    assert (keys / "supernode.pub").read_text() == found.supernode_key + "\n"
    with pytest.raises(OutputExists):
        enroll_site("north", "North Hospital", keys)
    made.request.unlink()  # as if the power had failed before the request was written
    assert enroll_site("north", "North Hospital", keys).fingerprint == made.fingerprint


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    ensure_site_keys(tmp_path)
    (tmp_path / "supernode.key").chmod(0o640)
    with pytest.raises(Refused, match="0640"):
        ensure_site_keys(tmp_path)


def test_a_member_enrolls(tmp_path: Path) -> None:
    made = enroll_member("alice", "North Hospital", tmp_path)
    found = read_request(made.request.read_bytes())
    assert found == MemberRequest(
        name="alice", institution="North Hospital", public_key=made.fingerprint
    )
    assert b"PRIVATE" not in made.request.read_bytes()
