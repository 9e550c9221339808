"""Keys on disk, fingerprints, RFC 8032 and DSSE known answers, and envelopes that lie."""

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from collegium.core.errors import InvalidInput, MissingInput, OutputExists, Refused
from collegium.core.signing import (
    FINGERPRINT_PREFIX,
    SMALL_ORDER,
    fingerprint,
    generate_key,
    load_or_create,
    load_private,
    load_public,
    make_envelope,
    open_envelope,
    pae,
    public_from_fingerprint,
    save_private,
    save_public,
    sign,
    verify,
)
from collegium.edge.device import envelope

# RFC 8032, section 7.1: (secret key, public key, message, signature)
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert key.public_key().public_bytes_raw().hex() == public
    assert sign(key, bytes.fromhex(message)).hex() == signature
    assert verify(key.public_key(), bytes.fromhex(signature), bytes.fromhex(message))
    assert not verify(key.public_key(), bytes.fromhex(signature), b"another message")
    assert not verify(key.public_key(), b"short", bytes.fromhex(message))


def test_dsse_known_answer() -> None:
    """The example of the DSSE protocol page."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected


def test_pae_counts_bytes_and_is_injective() -> None:
    assert pae("é", "ü".encode()) == "DSSEv1 2 é 2 ü".encode()
    assert pae("a 1 b", b"") != pae("a", b"b")


def test_keys_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "private" / "bundle.pem"
    key = load_or_create(path)
    assert load_or_create(path).private_bytes_raw() == key.private_bytes_raw()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    save_public(key.public_key(), tmp_path / "bundle.pub")
    assert fingerprint(load_public(tmp_path / "bundle.pub")) == fingerprint(key.public_key())
    with pytest.raises(OutputExists):
        save_private(generate_key(), path)


def test_wrong_files_are_named_not_shown(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        load_private(tmp_path / "none.pem")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("secret words")
    other = tmp_path / "ec.pem"
    other.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    for path in (rubbish, other):
        with pytest.raises(InvalidInput) as caught:
            load_private(path)
        assert "secret words" not in str(caught.value)
    with pytest.raises(InvalidInput):
        load_public(rubbish)


def test_fingerprint_round_trip() -> None:
    public = generate_key().public_key()
    text = fingerprint(public)
    assert text.startswith("ed25519:")
    assert base64.b64decode(text.removeprefix("ed25519:")) == public.public_bytes_raw()
    assert public_from_fingerprint(text) == public


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", "ed25519:****"])
def test_bad_fingerprints(text: str) -> None:
    with pytest.raises(InvalidInput):
        public_from_fingerprint(text)


def test_envelope_round_trip_and_threshold() -> None:
    first, second, stranger = generate_key(), generate_key(), generate_key()
    publics = [first.public_key(), second.public_key()]
    envelope = make_envelope(b"payload", [first, second])
    assert open_envelope(envelope, publics, threshold=2) == b"payload"
    assert envelope == make_envelope(b"payload", [first, second])
    with pytest.raises(Refused):
        open_envelope(make_envelope(b"payload", [first]), publics, threshold=2)
    with pytest.raises(Refused):  # one key twice is one key
        open_envelope(make_envelope(b"payload", [first, first]), publics, threshold=2)
    with pytest.raises(Refused):
        open_envelope(envelope, [stranger.public_key()])
    with pytest.raises(Refused):
        open_envelope(envelope, [])


def test_keyid_is_not_believed() -> None:
    """A stranger's signature under the trusted key's name stays a stranger's."""
    trusted, stranger = generate_key(), generate_key()
    envelope = json.loads(make_envelope(b"payload", [stranger]))
    envelope["signatures"][0]["keyid"] = fingerprint(trusted.public_key())
    with pytest.raises(Refused):
        open_envelope(json.dumps(envelope).encode(), [trusted.public_key()])


@pytest.mark.parametrize(
    "envelope",
    [b"", b"[]", b"{}", b"null", b'{"payload": 1, "payloadType": 2, "signatures": 3}', b"\xff"],
)
def test_malformed_envelopes_are_refused(envelope: bytes) -> None:
    with pytest.raises(Refused):
        open_envelope(envelope, [generate_key().public_key()])


def test_payload_type_is_signed() -> None:
    key = generate_key()
    envelope = make_envelope(b"payload", [key], payload_type="text/plain")
    with pytest.raises(Refused):
        open_envelope(envelope, [key.public_key()])
    assert open_envelope(envelope, [key.public_key()], payload_type="text/plain") == b"payload"


@pytest.mark.parametrize("sign_bit", [0, 0x80])
@pytest.mark.parametrize("point", sorted(SMALL_ORDER))
def test_keys_for_which_anyone_could_sign_are_refused(
    point: bytes, sign_bit: int, tmp_path: Path
) -> None:
    raw = point[:31] + bytes([point[31] | sign_bit])
    text = FINGERPRINT_PREFIX + base64.b64encode(raw).decode()
    with pytest.raises(InvalidInput, match="not an Ed25519 fingerprint"):
        public_from_fingerprint(text)
    save_public(Ed25519PublicKey.from_public_bytes(raw), tmp_path / "weak.pub")
    with pytest.raises(InvalidInput, match="Ed25519 public key"):
        load_public(tmp_path / "weak.pub")


def test_the_device_knows_the_same_weak_keys() -> None:
    assert envelope.SMALL_ORDER == SMALL_ORDER
