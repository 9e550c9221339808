"""Deterministic bytes, one rename, and a signature that covers every file."""

import base64
import hashlib
import io
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from collegium.core.errors import InvalidInput, OutputExists, Refused
from collegium.core.signing import generate_key, open_envelope
from collegium.edge import bundle as room
from collegium.edge.bundle import Terms, json_bytes, npz_bytes, statement, write_bundle

FILES = {"model.onnx": b"weights", "labels.json": b"{}"}
TERMS = Terms(
    name="four-hospitals",
    version=3,
    created=datetime(2026, 1, 2, tzinfo=UTC),
    simulated=False,
    opset=20,
    lineage={"rounds": 2},
    gate={"ok": True},
    selftest_min_agreement=0.95,
)


def test_statement_names_every_file_and_all_terms() -> None:
    parsed = json.loads(statement(FILES, TERMS))
    assert parsed["_type"] == "https://in-toto.io/Statement/v1"
    digests = {entry["name"]: entry["digest"]["sha256"] for entry in parsed["subject"]}
    assert digests == {n: hashlib.sha256(content).hexdigest() for n, content in FILES.items()}
    predicate = parsed["predicate"]
    assert predicate["created"] == "2026-01-02T00:00:00+00:00"
    assert predicate["expires"] == "2027-01-02T00:00:00+00:00"  # 365 days
    assert (predicate["version"], predicate["simulated"]) == (3, False)
    assert predicate["sizes"] == {"labels.json": 2, "model.onnx": 7}


def test_same_inputs_same_bytes_and_digest(tmp_path: Path) -> None:
    key = generate_key()
    digests = {write_bundle(tmp_path / name, FILES, TERMS, [key]) for name in ("one", "two")}
    assert len(digests) == 1
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["bundle.sig", "labels.json", "model.onnx"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_envelope_is_dsse_over_the_statement(tmp_path: Path) -> None:
    key, second = generate_key(), generate_key()
    digest = write_bundle(tmp_path / "b", FILES, TERMS, [key, second])
    envelope = (tmp_path / "b" / "bundle.sig").read_bytes()
    payload = open_envelope(envelope, [key.public_key(), second.public_key()], threshold=2)
    assert payload == statement(FILES, TERMS)
    assert digest == "sha256:" + hashlib.sha256(payload).hexdigest()
    outer = json.loads(envelope)
    assert outer["payloadType"] == "application/vnd.in-toto+json"
    assert base64.b64decode(outer["payload"]) == payload


def test_an_older_bundle_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    key, out = generate_key(), tmp_path / "b"
    write_bundle(out, FILES, TERMS, [key])
    write_bundle(out, {"model.onnx": b"newer"}, TERMS, [key])
    assert sorted(path.name for path in out.iterdir()) == ["bundle.sig", "model.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("five years of work")
    with pytest.raises(OutputExists):
        write_bundle(mine, FILES, TERMS, [key])
    with pytest.raises(OutputExists):
        write_bundle(mine / "thesis.txt", FILES, TERMS, [key])
    assert (mine / "thesis.txt").read_text() == "five years of work"


@pytest.mark.parametrize("step", ["write_atomic", "make_envelope", "put_in_place"])
def test_an_interruption_leaves_the_old_bundle(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, out = generate_key(), tmp_path / "b"
    write_bundle(out, FILES, TERMS, [key])
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(room, step, full_disk)
    with pytest.raises(OSError, match="no space"):
        write_bundle(out, {"model.onnx": b"newer"}, TERMS, [key])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_failed_rename_puts_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, out = generate_key(), tmp_path / "b"
    write_bundle(out, FILES, TERMS, [key])
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == out and self.name.startswith(".b."):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        write_bundle(out, {"model.onnx": b"newer"}, TERMS, [key])
    assert (out / "model.onnx").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "bundle.sig", "a\\b", "CON", "x."])
def test_names_that_are_not_plain_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        write_bundle(tmp_path / "b", {name: b""}, TERMS, [generate_key()])
    assert not list(tmp_path.iterdir())


def test_names_that_are_one_file_on_some_systems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        write_bundle(tmp_path / "b", {"a.md": b"", "A.md": b""}, TERMS, [generate_key()])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": -3},
        {"valid_days": 0},
        {"previous": "sha256:abc"},
        {"previous": "v2"},
        {"created": datetime(2026, 1, 2)},
        {"selftest_min_agreement": 1.5},
        {"selftest_min_agreement": float("nan")},
    ],
)
def test_terms_that_no_device_would_take_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="terms"):
        replace(TERMS, **change)


def test_terms_say_the_same_in_every_time_zone() -> None:
    digest = "sha256:" + "0" * 64
    there = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=3)))
    told = replace(TERMS, created=there, valid_days=30, previous=digest).predicate()
    assert told["created"] == "2026-01-02T00:00:00+00:00"
    assert told["expires"] == "2026-02-01T00:00:00+00:00"
    assert told["previous"] == digest


def test_several_keys_sign_once_each_in_any_order(tmp_path: Path) -> None:
    keys = [generate_key() for _ in range(3)]
    digest = write_bundle(tmp_path / "one", FILES, TERMS, keys)
    assert write_bundle(tmp_path / "two", FILES, TERMS, keys[::-1]) == digest
    envelopes = [(tmp_path / name / "bundle.sig").read_bytes() for name in ("one", "two")]
    assert envelopes[0] == envelopes[1]
    trusted = [key.public_key() for key in keys]
    open_envelope(envelopes[0], trusted, threshold=3)
    with pytest.raises(Refused):
        open_envelope(envelopes[0], trusted[:2], threshold=3)


def test_no_key_and_one_key_twice_are_refused(tmp_path: Path) -> None:
    key = generate_key()
    for keys in ([], [key, key]):
        with pytest.raises(InvalidInput, match="keys"):
            write_bundle(tmp_path / "b", FILES, TERMS, keys)
    assert not list(tmp_path.iterdir())


def test_a_private_key_is_never_bundled(tmp_path: Path) -> None:
    key, other = generate_key(), generate_key()
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ssh = other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    for secret in (pem, ssh, b"x" + key.private_bytes_raw() + b"y"):
        with pytest.raises(Refused, match="private key"):
            write_bundle(tmp_path / "b", {**FILES, "notes.txt": secret}, TERMS, [key])
    assert not list(tmp_path.iterdir())


def test_npz_and_json_bytes_are_canonical() -> None:
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 0])
    assert npz_bytes(x=x, y=y) == npz_bytes(y=y, x=np.asfortranarray(x))
    loaded = np.load(io.BytesIO(npz_bytes(x=x, y=y)))
    np.testing.assert_array_equal(loaded["x"], x)
    assert json_bytes({"b": 1, "a": "ü"}) == '{\n  "a": "ü",\n  "b": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        json_bytes(float("nan"))


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write_bundle(tmp_path / "b", FILES, TERMS, [generate_key()])
    assert (tmp_path / "b" / "bundle.sig").is_file()
    shutil.rmtree(tmp_path / "b")
