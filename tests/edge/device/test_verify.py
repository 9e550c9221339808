"""What a device refuses, by name and in which order; small bundles of every kind."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collegium.core.digest import canonical_bytes
from collegium.core.signing import fingerprint, generate_key, make_envelope
from collegium.edge.bundle import npz_bytes
from collegium.edge.device import DeviceError, are_plain, verify, verify_bundle
from collegium.edge.device.arrays import npy_array, npz_arrays, one_array

FILES = ("bundle.sig", "card.md", "input.json", "labels.json", "model.onnx", "selftest.npz")


def refused(bundle: Any, **options: Any) -> str:
    with pytest.raises(DeviceError) as caught:
        bundle.check(**options)
    assert caught.value.exit_code == 77
    return caught.value.code


@pytest.mark.parametrize("name", FILES)
def test_flipped_missing_renamed(name: str, make: Any) -> None:
    bundle = make()
    assert bundle.check().selftest_agreement == 1.0
    path = bundle.folder / name
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1
        path.write_bytes(spoilt)
        assert refused(bundle) == ("BAD SIGNATURE" if name == "bundle.sig" else "HASH")
    for changed in (whole + b"x", whole[:-1]):
        path.write_bytes(changed)
        # a space behind an envelope would be no other envelope; a letter is
        assert refused(bundle) == ("BAD SIGNATURE" if name == "bundle.sig" else "HASH")
    path.write_bytes(whole)
    path.rename(bundle.folder / "other")
    assert refused(bundle) == ("BAD SIGNATURE" if name == "bundle.sig" else "FILE SET")
    (bundle.folder / "other").unlink()
    assert refused(bundle) == ("BAD SIGNATURE" if name == "bundle.sig" else "FILE SET")


def test_added_files_folders_and_links(make: Any, tmp_path: Path) -> None:
    bundle = make()
    extra = bundle.folder / "extra"
    extra.write_bytes(b"")
    assert refused(bundle) == "FILE SET"
    extra.unlink()
    extra.mkdir()
    assert refused(bundle) == "FILE SET"
    extra.rmdir()
    model = bundle.folder / "model.onnx"
    model.rename(tmp_path / "model.onnx")
    model.symlink_to(tmp_path / "model.onnx")
    assert refused(bundle) == "FILE SET"


def test_sizes_bound_what_is_read(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make()
    asked: list[tuple[str, int]] = []
    for name in ("read_limited", "digest_of_file", "hold_model"):
        real = getattr(verify, name)

        def counted(path: Path, most: int, real: Any = real) -> Any:
            asked.append((path.name, most))
            return real(path, most)

        monkeypatch.setattr(verify, name, counted)
    sizes = bundle.statement["predicate"]["sizes"]
    assert bundle.check()
    # the questions twice: for their digest, and to be asked
    bounds = {**sizes, "bundle.sig": 1 << 20}
    assert sorted(asked) == sorted([*bounds.items(), ("selftest.npz", sizes["selftest.npz"])])
    for name in sizes:
        whole = (bundle.folder / name).read_bytes()
        with (bundle.folder / name).open("ab") as stream:
            stream.truncate(1 << 30)  # sparse: read whole, it would be 1 GB
        assert refused(bundle) == "HASH"
        (bundle.folder / name).write_bytes(whole)
    for wrong in ({"card.md": -1}, {"card.md": "9"}, [1], {"card.md": 1 << 40}):
        bundle.statement["predicate"]["sizes"] = wrong
        bundle.sign()
        assert refused(bundle) == "BAD STATEMENT"


def test_keys_thresholds_and_revocation(make: Any) -> None:
    bundle = make(keys=3)
    trusted = [key.public_key() for key in bundle.keys]
    assert bundle.check(threshold=3).labels == ("a", "b", "c")
    bundle.sign(bundle.keys[:2])
    assert bundle.check(threshold=2)
    assert refused(bundle, threshold=3) == "BAD SIGNATURE"
    gone = fingerprint(trusted[0])
    assert refused(bundle, threshold=2, revoked=[gone]) == "BAD SIGNATURE"
    assert bundle.check(threshold=1, revoked=[gone])
    with pytest.raises(DeviceError, match="no trusted key"):
        verify_bundle(bundle.folder, [generate_key().public_key()])


def test_time(make: Any) -> None:
    bundle = make()
    expires = datetime.fromisoformat(bundle.statement["predicate"]["expires"])
    assert bundle.check(now=expires - timedelta(seconds=1)).notes == ()
    assert refused(bundle, now=expires) == "EXPIRED"
    late = bundle.check(now=expires + timedelta(days=9), expired="warn")
    assert late.notes == (f"expired at {expires.isoformat()}",)
    early = bundle.check(now=expires - timedelta(days=5000))
    assert "clock is behind" in early.notes[0]
    # made after it expires: no clock, however far behind, revives it
    bundle.statement["predicate"]["created"] = (expires + timedelta(days=1)).isoformat()
    bundle.sign()
    assert refused(bundle, now=expires - timedelta(days=5000)) == "EXPIRED"


STATEMENTS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda s: s.update(_type="other"), "BAD STATEMENT"),
    (lambda s: s.update(predicateType="urn:collegium:bundle:v2"), "BAD STATEMENT"),
    (lambda s: s.pop("predicate"), "BAD STATEMENT"),
    (lambda s: s.update(predicate=[]), "BAD STATEMENT"),
    (lambda s: s.update(subject=7), "BAD STATEMENT"),
    (lambda s: s.update(subject=[["model.onnx"]]), "BAD STATEMENT"),
    (lambda s: s["subject"][0].update(digest={"sha256": "x"}), "BAD STATEMENT"),
    (lambda s: s["subject"][0].update(digest={"sha256": 7}), "BAD STATEMENT"),
    (lambda s: s["predicate"].pop("expires"), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(expires="soon"), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(expires="2027-01-01T00:00:00"), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(created="2027-01-01T00:00:00"), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(version="3"), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(version=-1), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(name=None), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(selftest_min_agreement=-0.1), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(selftest_min_agreement="high"), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(selftest_min_agreement=1.1), "SELFTEST"),
    (lambda s: s["predicate"].update(minimum_runtime="99.0"), "RUNTIME"),
    (lambda s: s["predicate"].update(minimum_runtime="new"), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(minimum_runtime=9), "BAD STATEMENT"),
    (lambda s: s["predicate"].update(simulated=True), "SIMULATED"),
    (lambda s: s["predicate"].update(simulated="no"), "SIMULATED"),
    (lambda s: s["subject"][0].update(name="../card.md"), "FILE SET"),
    (lambda s: s["subject"][0].update(name="a/card.md"), "FILE SET"),
    (lambda s: s["subject"][0].update(name="..\\card.md"), "FILE SET"),
    (lambda s: s["subject"][0].update(name=".card"), "FILE SET"),
    (lambda s: s["subject"][0].update(name=""), "FILE SET"),
    (lambda s: s["subject"][0].update(name="NUL"), "FILE SET"),
    (lambda s: s["subject"][0].update(name="con.md"), "FILE SET"),
    (lambda s: s["subject"][0].update(name="card."), "FILE SET"),
    (lambda s: s["subject"][0].update(name=7), "FILE SET"),
    (lambda s: s["subject"][0].update(name="bundle.sig"), "FILE SET"),
    (lambda s: s["subject"][0].update(name="Bundle.SIG"), "FILE SET"),
    (lambda s: s["subject"].append(s["subject"][0]), "FILE SET"),
    (lambda s: s["subject"].append({**s["subject"][0], "name": "CARD.md"}), "FILE SET"),
    (lambda s: s["subject"].pop(), "FILE SET"),
    (lambda s: s.update(subject=[]), "FILE SET"),
]


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
def test_signed_but_wrong_statements(number: int, make: Any) -> None:
    bundle, (change, code) = make(), STATEMENTS[number]
    change(bundle.statement)
    bundle.sign()
    assert refused(bundle) == code


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner:
       st.lists(inner, max_size=3) | st.dictionaries(
           st.sampled_from(["_type", "subject", "predicate", "predicateType", "name", "digest"]),
           inner, max_size=4), max_leaves=12))  # fmt: skip
def test_any_signed_json_is_refused_by_name(make: Any, value: Any) -> None:
    bundle = make()
    payload = json.dumps(value).encode()
    (bundle.folder / "bundle.sig").write_bytes(make_envelope(payload, bundle.keys))
    assert refused(bundle) in ("BAD STATEMENT", "FILE SET")


def test_signature_comes_before_parsing_and_before_every_file(make: Any) -> None:
    bundle = make()
    envelope = make_envelope(b'{"subject": [', [generate_key()])
    (bundle.folder / "bundle.sig").write_bytes(envelope)
    for path in bundle.folder.iterdir():
        if path.name != "bundle.sig":
            path.unlink()
    assert refused(bundle) == "BAD SIGNATURE"
    (bundle.folder / "bundle.sig").write_bytes(make_envelope(b'{"subject": [', bundle.keys))
    assert refused(bundle) == "BAD STATEMENT"


@pytest.mark.parametrize("memory", ["the kernel's", "the process's"])
def test_the_bytes_that_were_hashed_are_loaded(
    make: Any, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    """A file that is swapped between hash and load changes nothing, or is found out."""
    if memory == "the process's":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    bundle = make()
    expected = bundle.check().predict(np.ones((2, 3)))[1]
    checked, names = verify.checked_files, ["model.onnx", "input.json", "labels.json", "card.md"]

    def swap(*arguments: Any) -> Any:
        found = checked(*arguments)
        for name in names:
            (bundle.folder / name).write_bytes(b"another file")
        return found

    monkeypatch.setattr(verify, "checked_files", swap)
    whole = {path: path.read_bytes() for path in bundle.folder.iterdir()}
    np.testing.assert_array_equal(bundle.check().predict(np.ones((2, 3)))[1], expected)
    for path, content in whole.items():
        path.write_bytes(content)
    names[:] = ["selftest.npz"]
    assert refused(bundle) == "HASH"


def test_no_descriptor_is_left_open(make: Any) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc here: open files cannot be counted")
    bundle = make()
    before = len(list(folder.iterdir()))
    for name, content in (("model.onnx", b"no graph"), ("labels.json", b"[]")):
        bundle.replace(name, content)
        assert refused(bundle) in ("MODEL", "BAD FILE")
    (bundle.folder / "model.onnx").write_bytes(b"x")
    assert refused(bundle) == "HASH"
    assert len(list(folder.iterdir())) == before


def npz(**arrays: np.ndarray) -> bytes:
    return npz_bytes(**arrays)


X, Y = np.ones((4, 2, 3), np.float32), np.zeros(4, np.int64)
BOMB = io.BytesIO()
with zipfile.ZipFile(BOMB, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("x.npy", b"\0" * 400_000_000)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("model.onnx", b"", "MODEL"),
        ("model.onnx", b"no graph", "MODEL"),
        ("labels.json", b"", "BAD FILE"),
        ("labels.json", b"[]", "BAD FILE"),
        ("labels.json", b'{"classes": "abc"}', "BAD FILE"),
        ("labels.json", b'{"classes": [1, 2, 3]}', "BAD FILE"),
        ("labels.json", b'{"classes": []}', "BAD FILE"),
        ("labels.json", b'{"classes": ["a", "b"]}', "SELFTEST"),
        ("labels.json", b"[" * 99_999, "BAD FILE"),
        ("input.json", b"\xff", "BAD FILE"),
        ("input.json", b"{}", "BAD FILE"),
        ("input.json", b'{"schema": 2}', "RUNTIME"),
        ("input.json", b'{"schema": 1, "kind": "array", "dtype": "float32", "shape": [0]}',
         "BAD FILE"),
        ("input.json", b'{"schema": 1, "kind": "array", "dtype": "float64", "shape": [2, 3]}',
         "BAD FILE"),
        ("input.json", b'{"schema": 1, "kind": "song", "dtype": "float32", "shape": [2, 3]}',
         "BAD FILE"),
        ("input.json", b'{"schema": 1, "kind": "image", "dtype": "float32", "shape": [2, 3]}',
         "BAD FILE"),
        ("input.json", b'{"schema": 1, "kind": "text", "dtype": "int32", "shape": [6]}',
         "BAD FILE"),
        ("input.json", b'{"schema": 1, "kind": "table", "dtype": "float32", "shape": [2]}',
         "BAD FILE"),
        ("input.json", b'{"schema": 1, "kind": "array", "dtype": "float32", "shape": [6]}',
         "SELFTEST"),
        ("selftest.npz", b"", "SELFTEST"),
        ("selftest.npz", BOMB.getvalue(), "SELFTEST"),
        ("selftest.npz", npz(x=X), "SELFTEST"),
        ("selftest.npz", npz(x=X[:0], labels=Y[:0]), "SELFTEST"),
        ("selftest.npz", npz(x=X, labels=Y[:3]), "SELFTEST"),
        ("selftest.npz", npz(x=X[:, 0], labels=Y), "SELFTEST"),
        ("selftest.npz", npz(x=X * np.nan, labels=Y), "SELFTEST"),
        ("selftest.npz", npz(x=X * 1e38, labels=Y), "SELFTEST"),  # the answers are infinite
        ("selftest.npz", npz(x=X, labels=Y + 7), "SELFTEST"),
        ("selftest.npz", npz(x=np.array([["a"]]), labels=Y), "SELFTEST"),
    ],
)  # fmt: skip
def test_a_malformed_file_that_is_rightly_signed(
    name: str, content: bytes, code: str, make: Any
) -> None:
    bundle = make()
    bundle.replace(name, content)
    assert refused(bundle) == code


@pytest.mark.parametrize("name", ["model.onnx", "labels.json", "selftest.npz"])
def test_a_signed_set_without_what_is_needed(name: str, make: Any) -> None:
    bundle = make()
    (bundle.folder / name).unlink()
    subject = bundle.statement["subject"]
    bundle.statement["subject"] = [each for each in subject if each["name"] != name]
    bundle.sign()
    assert refused(bundle) == "FILE SET"


def test_a_bundle_without_input_json_reads_what_its_graph_reads(make: Any) -> None:
    bundle = make()
    (bundle.folder / "input.json").unlink()
    subject = bundle.statement["subject"]
    bundle.statement["subject"] = [each for each in subject if each["name"] != "input.json"]
    bundle.sign()
    form = bundle.check().form
    assert (form.kind, form.dtype, form.shape) == ("array", "float32", (2, 3))


def test_what_is_kept_in_memory_is_not_the_files(make: Any) -> None:
    verified = make().check()
    held = [getattr(verified, name) for name in verified.__dataclass_fields__]
    assert not any(isinstance(each, bytes | bytearray) for each in held)
    assert set(verified.subjects) == set(FILES) - {"bundle.sig"}


def test_the_digest_is_that_of_the_signed_statement(make: Any) -> None:
    bundle = make()
    raw = canonical_bytes(bundle.statement)
    assert bundle.check().digest == "sha256:" + hashlib.sha256(raw).hexdigest()


def test_plain_names() -> None:
    assert are_plain(["model.onnx", "a_b-c.1", "COM", "null", "console.md"])
    for names in (["a", "A"], ["aux"], ["LPT1.txt"], ["COM9"], ["a" * 101], ["a b"], ["ä"], ["-a"],
                  ["a\n"], ["a:b"], [None]):  # fmt: skip
        assert not are_plain(names)


@given(
    st.sampled_from([npy_array, npz_arrays, one_array]),
    st.binary(max_size=120),
    st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"PK\x03\x04"]),
)
def test_any_bytes_are_no_array(read: Any, raw: bytes, start: bytes) -> None:
    with pytest.raises(ValueError, match="it "):
        read(start + raw)


def test_arrays_are_bounded_and_hold_no_objects() -> None:
    def header(text: str) -> bytes:
        raw = text.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw

    plain = "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }"
    for descr, shape in (("<f4", "99999999999,"), ("|O", "1,"), ("<f4", "-1,"), ("<f8", "1, 2")):
        with pytest.raises(ValueError, match=r"no \.npy"):
            npy_array(header(plain % (descr, shape)) + b"\0" * 8)
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((2, 3))), np.array(["é"])):
        stream = io.BytesIO()
        np.save(stream, array)
        np.testing.assert_array_equal(npy_array(stream.getvalue()), array)
    with pytest.raises(ValueError, match="too large"):
        npz_arrays(BOMB.getvalue(), 1 << 20)
    with pytest.raises(ValueError, match="several"):
        one_array(npz(a=Y, b=Y))
