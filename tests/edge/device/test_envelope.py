"""Signatures on a device: distinct trusted keys, revoked ones, RFC 8032, and no crash ever."""

import base64
import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.signing import IN_TOTO, fingerprint, generate_key, make_envelope, save_public
from collegium.edge.device import DeviceError, fingerprint_of, read_key, signed_payload
from collegium.edge.device.envelope import _holds

# RFC 8032, section 7.1: TEST 1, 2, 3, and TEST SHA(abc)
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
        "454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
]
# the points whose order divides 8, by their y; libsodium refuses the same ones
SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_rfc_8032(public: str, message: str, signature: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    sig, text = bytes.fromhex(signature), bytes.fromhex(message)
    assert _holds(key, sig, text)
    for place in range(64):
        flipped = sig[:place] + bytes([sig[place] ^ 1]) + sig[place + 1 :]
        assert not _holds(key, flipped, text)
    assert not _holds(key, sig, text + b"x")
    assert not _holds(key, sig[:-1], text) and not _holds(key, b"", text)


def test_a_signature_beyond_the_groups_order_is_refused() -> None:
    """S + L verifies the same equation; RFC 8032, 5.1.7 has S < L."""
    public, _, signature = RFC_8032[0]
    order = 2**252 + 27742317777372353535851937790883648493
    raw = bytes.fromhex(signature)
    larger = int.from_bytes(raw[32:], "little") + order
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    assert not _holds(key, raw[:32] + larger.to_bytes(32, "little"), b"")


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("public", SMALL_ORDER)
def test_a_key_of_small_order_is_no_key(public: str, sign: int, tmp_path: Path) -> None:
    """Without a secret, anyone could write signatures that such a key takes for some messages."""
    raw = bytes.fromhex(public)
    raw = raw[:31] + bytes([raw[31] | sign])
    key = Ed25519PublicKey.from_public_bytes(raw)
    save_public(key, tmp_path / "key.pem")
    written = "ed25519:" + base64.b64encode(raw).decode()
    for text in (str(tmp_path / "key.pem"), written):
        with pytest.raises(DeviceError, match="BAD KEY"):
            read_key(text)
    points = [bytes.fromhex(p) + bytes(32) for p in SMALL_ORDER]
    envelope = json.dumps(
        {
            "payload": base64.b64encode(b"{}").decode(),
            "payloadType": IN_TOTO,
            "signatures": [{"sig": base64.b64encode(each).decode()} for each in points],
        }
    ).encode()
    with pytest.raises(DeviceError, match="BAD SIGNATURE"):
        signed_payload(envelope, [key], 1)


def test_why_keys_of_small_order_are_refused() -> None:
    """The library alone takes a signature of zeros for any message by the neutral point."""
    neutral = bytes.fromhex(SMALL_ORDER[1])
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"any message")


def test_k_of_n_counts_distinct_trusted_keys() -> None:
    keys = [generate_key() for _ in range(3)]
    public = [key.public_key() for key in keys]
    two = make_envelope(b"{}", keys[:2])
    assert signed_payload(two, public, 2) == b"{}"
    refused = [
        (two, public, 3),  # k - 1 signatures
        (two, public[1:], 2),  # one of them is of no trusted key
        (make_envelope(b"{}", [keys[0], keys[0]]), public, 2),  # one key twice
        (two, [public[0], public[0]], 2),  # trusted twice
        (two, [], 1),
        (two, [], 0),
    ]
    for envelope, trusted, threshold in refused:
        with pytest.raises(DeviceError, match="BAD SIGNATURE"):
            signed_payload(envelope, trusted, threshold)


def test_a_revoked_key_counts_for_nothing_and_is_named() -> None:
    keys = [generate_key() for _ in range(3)]
    public = [key.public_key() for key in keys]
    gone = fingerprint_of(public[0])
    assert gone == fingerprint(public[0])
    with pytest.raises(DeviceError, match="revoked") as caught:
        signed_payload(make_envelope(b"{}", keys[:2]), public, 2, revoked=[gone])
    assert gone in caught.value.reason
    assert signed_payload(make_envelope(b"{}", keys), public, 2, revoked=[gone]) == b"{}"
    with pytest.raises(DeviceError, match="no trusted key"):
        signed_payload(make_envelope(b"{}", [generate_key()]), public, 1, revoked=[gone])


def test_keys_written_out(tmp_path: Path) -> None:
    key = generate_key().public_key()
    assert fingerprint_of(read_key(fingerprint(key))) == fingerprint(key)
    for text in ("ed25519:", "ed25519:AAAA", "ed25519:" + "é" * 43, "ed25519:!!"):
        with pytest.raises(DeviceError) as caught:
            read_key(text)
        assert (caught.value.code, caught.value.exit_code) == ("BAD KEY", 65)
    (tmp_path / "k.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(DeviceError, match=r"k\.pem"):
        read_key(str(tmp_path / "k.pem"))


def test_keys_in_every_form_of_pem(tmp_path: Path) -> None:
    key, path = generate_key().public_key(), tmp_path / "key.pem"
    save_public(key, path)
    usual = path.read_text()
    body = usual.splitlines()[1]
    forms = [usual, usual.replace("\n", "\r\n"), "\n" + usual + "\n\n",
             usual.replace(body, body[:30] + "\n" + body[30:]),
             "said before\n" + usual]  # fmt: skip
    for form in forms:
        path.write_text(form, newline="")
        assert fingerprint_of(read_key(str(path))) == fingerprint(key)
    for form in ("", "\n", "-----BEGIN PUBLIC KEY-----", usual.replace(body, body[:-4]),
                 usual.replace(body, "é"), usual.replace("PUBLIC", "PRIVATE")):  # fmt: skip
        path.write_text(form, encoding="utf-8")
        with pytest.raises(DeviceError, match="BAD KEY"):
            read_key(str(path))


def mutated(outer: dict[str, Any], rng: random.Random) -> bytes:
    """Change one thing of an envelope's structure that its signature covers, or break its form."""
    strange = [None, 7, -1.5, True, "", "é", "A" * 5000, [], {}, [[]], "\ud800", "====", [None]]
    found = copy.deepcopy(outer)
    kind = rng.randrange(7)
    if kind == 0:
        found[rng.choice(["payload", "payloadType", "signatures"])] = rng.choice(strange)
    elif kind == 1:
        del found[rng.choice(["payload", "payloadType", "signatures"])]
    elif kind == 2:
        found["signatures"][0]["sig"] = rng.choice(strange)
    elif kind == 3:
        found["signatures"] = [rng.choice(strange) for _ in range(rng.randrange(3))]
    elif kind == 4:
        sig = bytearray(base64.b64decode(found["signatures"][0]["sig"]))
        sig[rng.randrange(64)] ^= 1 << rng.randrange(8)
        found["signatures"][0]["sig"] = base64.b64encode(sig).decode()
    elif kind == 5:
        payload = bytearray(base64.b64decode(found["payload"]))
        payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        found["payload"] = base64.b64encode(payload).decode()
    else:
        return json.dumps(rng.choice([[found], found["payload"], 3, None, [outer] * 3])).encode()
    return json.dumps(found).encode()


def test_a_thousand_fuzzed_envelopes_neither_crash_nor_pass() -> None:
    key, rng = generate_key(), random.Random(0)
    payload = json.dumps({"_type": "x", "subject": [], "predicate": {"version": 1}}).encode()
    envelope = make_envelope(payload, [key])
    outer, trusted = json.loads(envelope), [key.public_key()]
    assert signed_payload(envelope, trusted, 1) == payload
    seen = {"structure": 0, "bytes": 0}
    while sum(seen.values()) < 1000:
        if rng.random() < 0.6:
            kind, changed = "structure", mutated(outer, rng)
        else:
            kind, spoilt = "bytes", bytearray(envelope)
            for _ in range(rng.randint(1, 20)):
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
            changed = bytes(spoilt[: rng.choice([len(spoilt), rng.randrange(len(spoilt))])])
            if _says_the_same(outer, changed):
                continue
        with pytest.raises(DeviceError, match="BAD SIGNATURE"):
            signed_payload(changed, trusted, 1)
        seen[kind] += 1
    assert min(seen.values()) > 300


def _says_the_same(outer: dict[str, Any], changed: bytes) -> bool:
    """Whether only what nobody believes differs: a key's name, other members."""
    try:
        other = json.loads(changed)
        return all(
            (
                other["payload"] == outer["payload"],
                other["payloadType"] == outer["payloadType"],
                other["signatures"][0]["sig"] == outer["signatures"][0]["sig"],
            )
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return False


@given(st.binary(max_size=300))
def test_any_bytes_are_a_bad_signature(raw: bytes) -> None:
    with pytest.raises(DeviceError, match="BAD SIGNATURE"):
        signed_payload(raw, [generate_key().public_key()], 1)


def test_deep_and_many() -> None:
    key = generate_key()
    many = json.loads(make_envelope(b"{}", [key]))
    many["signatures"] += [
        {"sig": base64.b64encode(number.to_bytes(64, "big")).decode()} for number in range(300)
    ]
    other = make_envelope(b"{}", [key], payload_type="text/plain")
    for raw in (b"[" * 100_000, json.dumps(many).encode(), other,
                other.replace(b"text/plain", IN_TOTO.encode())):  # fmt: skip
        with pytest.raises(DeviceError, match="BAD SIGNATURE"):
            signed_payload(raw, [key.public_key()], 1)
