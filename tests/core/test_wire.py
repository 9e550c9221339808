"""The one array form a peer may send: hand-read, exact, and nothing else is ever accepted."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.messages import MAX_HEADER_BYTES, BadMessage
from collegium.core.wire import (
    PAYLOAD,
    SEAL,
    VECTOR,
    from_npy,
    from_records,
    npy_size,
    to_npy,
)

SEALED = {"header": b"{}", "signature": b"s"}


@given(st.binary(max_size=300))
def test_round_trip_is_what_numpy_reads(data: bytes) -> None:
    raw = to_npy(data)
    assert from_npy(raw) == data
    array = np.load(io.BytesIO(raw), allow_pickle=False)
    assert array.dtype == np.uint8
    assert array.tobytes() == data


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_are_refused(raw: bytes) -> None:
    assert from_npy(raw) is None


@given(data=st.binary(max_size=100), place=st.integers(0), byte=st.integers(0, 255))
@settings(max_examples=500)
def test_one_changed_header_byte_is_refused(data: bytes, place: int, byte: int) -> None:
    raw = bytearray(to_npy(data))
    head = len(raw) - len(data)
    place %= head
    changed = raw[place] != byte
    raw[place] = byte
    assert (from_npy(bytes(raw)) is None) == changed


@given(data=st.binary(max_size=100), cut=st.integers(1, 250))
def test_truncated_and_padded_files_are_refused(data: bytes, cut: int) -> None:
    raw = to_npy(data)
    assert from_npy(raw[: max(0, len(raw) - cut)]) is None
    assert from_npy(raw + bytes(cut)) is None


def header(text: str, *, magic: bytes = b"\x93NUMPY\x01\x00", body: bytes = b"") -> bytes:
    """A file with any header text, padded as numpy pads it."""
    line = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return magic + len(line).to_bytes(2, "little") + line + body


GOOD = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }"


def test_the_helper_makes_good_headers() -> None:
    assert from_npy(header(GOOD, body=b"abc")) == b"abc"


@pytest.mark.parametrize(
    "raw",
    [
        header(GOOD, body=b"ab"),
        header(GOOD, body=b"abcd"),
        header(GOOD.replace("(3,)", "(03,)"), body=b"abc"),
        header(GOOD.replace("(3,)", "(3, 1)"), body=b"abc"),
        header(GOOD.replace("(3,)", "(1000000000000,)"), body=b"abc"),
        header(GOOD.replace("(3,)", "(-3,)"), body=b"abc"),
        header(GOOD.replace("(3,)", "()"), body=b"a"),
        header(GOOD.replace("|u1", "|O"), body=b"abc"),
        header(GOOD.replace("|u1", "<f4"), body=b"abcdefghijkl"),
        header(GOOD.replace("|u1", "|i1"), body=b"abc"),
        header(GOOD.replace("False", "True"), body=b"abc"),
        header(GOOD + " " * 64, body=b"abc"),
        header(GOOD, magic=b"\x93NUMPY\x02\x00", body=b"abc"),
        header("__import__('os').abort()", body=b"abc"),
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04\x95" + bytes(100),
        b"",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\xff\xff",
    ],
)
def test_bombs_and_other_forms_are_refused(raw: bytes) -> None:
    assert from_npy(raw) is None


def test_records_by_hand() -> None:
    sealed = from_records({SEAL: SEALED}, {VECTOR: {PAYLOAD: to_npy(b"abc")}})
    assert (sealed.header, sealed.signature, sealed.payload) == (b"{}", b"s", b"abc")


@pytest.mark.parametrize(
    ("configs", "arrays", "code"),
    [
        ({}, {VECTOR: {PAYLOAD: to_npy(b"")}}, "schema"),
        ({SEAL: SEALED}, {}, "schema"),
        ({SEAL: SEALED}, {VECTOR: {}}, "schema"),
        ({SEAL: SEALED, "more": {}}, {VECTOR: {PAYLOAD: to_npy(b"")}}, "schema"),
        ({SEAL: SEALED}, {VECTOR: {PAYLOAD: to_npy(b""), "more": b""}}, "schema"),
        ({SEAL: SEALED}, {VECTOR: {PAYLOAD: to_npy(b"")}, "more": {}}, "schema"),
        ({SEAL: {"header": b"{}"}}, {VECTOR: {PAYLOAD: to_npy(b"")}}, "schema"),
        ({SEAL: SEALED | {"note": "x"}}, {VECTOR: {PAYLOAD: to_npy(b"")}}, "schema"),
        ({SEAL: SEALED | {"header": "{}"}}, {VECTOR: {PAYLOAD: to_npy(b"")}}, "schema"),
        ({SEAL: SEALED | {"signature": [1]}}, {VECTOR: {PAYLOAD: to_npy(b"")}}, "schema"),
        ({SEAL: SEALED}, {VECTOR: {PAYLOAD: b"rubbish"}}, "payload"),
    ],
)
def test_any_other_records_are_refused(
    configs: dict[str, dict[str, object]], arrays: dict[str, dict[str, bytes]], code: str
) -> None:
    with pytest.raises(BadMessage) as caught:
        from_records(configs, arrays)
    assert caught.value.code == code


@pytest.mark.parametrize("size", [0, 1, 9, 10, 100, 1000])
def test_a_payload_is_bounded_before_it_is_copied(size: int) -> None:
    arrays = {VECTOR: {PAYLOAD: to_npy(bytes(size))}}
    assert len(from_records({SEAL: SEALED}, arrays, size).payload) == size
    assert npy_size(size) == len(to_npy(bytes(size)))
    with pytest.raises(BadMessage) as caught:
        from_records({SEAL: SEALED}, {VECTOR: {PAYLOAD: to_npy(bytes(size + 1))}}, size)
    assert caught.value.code == "shape"


def test_a_long_header_is_refused() -> None:
    configs = {SEAL: SEALED | {"header": bytes(MAX_HEADER_BYTES + 1)}}
    with pytest.raises(BadMessage) as caught:
        from_records(configs, {VECTOR: {PAYLOAD: to_npy(b"")}})
    assert caught.value.code == "header"
