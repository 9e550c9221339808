"""Canonical bytes and digests: known answers, so that no version ever renames a value."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.digest import canonical_bytes, digest_of, file_digest, sha256_hex


def test_canonical_known_answers() -> None:
    assert canonical_bytes({"b": [1, 2.5, None, True], "a": "é"}) == (
        '{"a":"é","b":[1,2.5,null,true]}'.encode()
    )
    assert canonical_bytes({}) == b"{}"
    assert canonical_bytes(1e-7) == b"1e-07"  # Python's repr, not RFC 8785's 1e-7


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": -float("inf")}, "\ud800"])
def test_what_has_no_canonical_bytes(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_bytes(value)


def test_only_plain_values() -> None:
    with pytest.raises(TypeError):
        canonical_bytes({"path": Path("x")})


def test_sha256_of_parts_is_that_of_the_whole() -> None:
    """FIPS 180-2, appendix B.1: SHA-256 of 'abc'."""
    expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_hex(b"abc") == sha256_hex(b"a", memoryview(b"bc")) == expected


def test_digest_of_by_hand() -> None:
    by_hand = hashlib.sha256(b"\0\0\0\x06domain" + b'{"a":1}').hexdigest()
    assert digest_of("domain", {"a": 1}) == "sha256:" + by_hand


def test_domains_separate() -> None:
    assert digest_of("a", "b") != digest_of("b", "b")
    assert digest_of("ab", 1) != digest_of("a", 1)


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=5))
def test_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert digest_of("d", value) == digest_of("d", dict(reversed(value.items())))


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == sha256_hex(b"abc")
