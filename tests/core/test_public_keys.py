"""One key has one spelling, and a private key has one reader."""

import base64
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.core.public_keys import (
    ecdsa_from_ssh,
    ecdsa_key_fault,
    ed25519_key_fault,
    load_ssh_private,
    require_private,
    ssh_text,
)
from collegium.core.signing import fingerprint, generate_key

KEY = ec.generate_private_key(ec.SECP384R1())


def test_a_key_reads_back() -> None:
    assert ecdsa_from_ssh(ssh_text(KEY.public_key())) == KEY.public_key()
    assert ecdsa_key_fault(ssh_text(KEY.public_key())) == ""
    assert ed25519_key_fault(fingerprint(generate_key().public_key())) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ecdsa-sha2-nistp384 AAAA",
        ssh_text(KEY.public_key()) + " site@host",
        ssh_text(KEY.public_key()) + "\n",
        " " + ssh_text(KEY.public_key()),
        ssh_text(ec.generate_private_key(ec.SECP256R1()).public_key()),
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode(),
    ],
)
def test_other_spellings_and_other_keys(text: str) -> None:
    assert ecdsa_key_fault(text)


@pytest.mark.parametrize(
    "text", ["", "ed25519:", "ed25519:AAAA", "ed25519:" + "A" * 42 + "B=", "rsa:" + "A" * 43 + "="]
)
def test_what_is_no_fingerprint(text: str) -> None:
    assert ed25519_key_fault(text)


FORMS = serialization.PrivateFormat
PUBLIC = ssh_text(KEY.public_key()).encode()
PRIVATE = KEY.private_bytes(serialization.Encoding.PEM, FORMS.OpenSSH, serialization.NoEncryption())


def test_a_compressed_point_is_refused() -> None:
    head, body = PUBLIC.decode().split(" ")
    raw = bytearray(base64.b64decode(body))
    raw[raw.index(4, 35)] = 2  # the byte that says "uncompressed"
    with pytest.raises(InvalidInput):
        ecdsa_from_ssh(f"{head} {base64.b64encode(raw).decode()}")


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_in_a_key_raises_nothing_but_invalid_input(place: int, bit: int) -> None:
    public = bytearray(PUBLIC)
    public[place % len(public)] ^= 1 << bit
    assert ecdsa_key_fault(public.decode("latin-1")) or bytes(public) != PUBLIC
    private = bytearray(PRIVATE)
    private[place % len(private)] ^= 1 << bit
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_bytes(private)
        with suppress(InvalidInput):
            load_ssh_private(path)


def write(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> Path:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    path.chmod(0o600)
    return path


def test_private_keys(tmp_path: Path) -> None:
    good = write(tmp_path / "good", KEY, serialization.PrivateFormat.OpenSSH)
    assert load_ssh_private(good).public_key() == KEY.public_key()
    other = ec.generate_private_key(ec.SECP256R1())
    for bad in (
        write(tmp_path / "pkcs8", KEY, serialization.PrivateFormat.PKCS8),
        write(tmp_path / "p256", other, serialization.PrivateFormat.OpenSSH),
    ):
        with pytest.raises(InvalidInput):
            load_ssh_private(bad)
    with pytest.raises(MissingInput):
        load_ssh_private(tmp_path / "none")


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o660, 0o666, 0o644])
def test_a_key_file_has_one_reader(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "key", KEY, serialization.PrivateFormat.OpenSSH)
    require_private(path)
    path.chmod(0o400)
    require_private(path)
    path.chmod(mode)
    with pytest.raises(Refused, match=f"{mode:04o}"):
        require_private(path)
    with pytest.raises(MissingInput):
        require_private(tmp_path / "none")
