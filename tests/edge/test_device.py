"""A real bundle on a device: what it refuses, in which order, with which exit code."""

import base64
import json
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.digest import canonical_bytes
from collegium.core.signing import IN_TOTO, generate_key, make_envelope, save_public
from collegium.edge import device
from collegium.edge.apart import run_device
from collegium.edge.device import DeviceError, Verified, load_key, verify, verify_bundle
from collegium.edge.single_file import device_script

FILES = (
    "bundle.sig",
    "card.md",
    "labels.json",
    "model.onnx",
    "parity.json",
    "privacy.json",
    "sbom.cdx.json",
    "selftest.npz",
)


def check(made: Any, bundle: Path, **options: Any) -> Verified:
    return verify_bundle(bundle, [load_key(made.pem)], **({"allow_simulated": True} | options))


def refused(made: Any, bundle: Path, **options: Any) -> str:
    """Return the code with which the device refuses."""
    with pytest.raises(DeviceError) as caught:
        check(made, bundle, **options)
    return caught.value.code


def resign(made: Any, bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the statement and sign it again with the trusted key."""
    path = bundle / "bundle.sig"
    statement = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
    change(statement)
    path.write_bytes(make_envelope(canonical_bytes(statement), [made.key]))


def test_the_real_bundle_verifies_and_predicts(made: Any) -> None:
    verified = check(made, made.folder)
    assert sorted([*verified.files, "bundle.sig"]) == list(FILES)
    labels, chances = device.predict(verified, made.test.x)
    assert np.mean([int(label) for label in labels] == made.test.y) == made.result.accuracy
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    single, _ = device.predict(verified, made.test.x[0])
    assert single == labels[:1]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_in_any_file_is_refused(name: str, made: Any, bundle: Path) -> None:
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert refused(made, bundle) == ("BAD SIGNATURE" if name == "bundle.sig" else "HASH")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(name: str, made: Any, bundle: Path) -> None:
    (bundle / name).unlink()
    assert refused(made, bundle) == ("BAD SIGNATURE" if name == "bundle.sig" else "FILE SET")


def test_an_added_file_folder_or_link_is_refused(made: Any, bundle: Path) -> None:
    extra = bundle / "extra"
    extra.write_bytes(b"")
    assert refused(made, bundle) == "FILE SET"
    extra.unlink()
    extra.mkdir()
    assert refused(made, bundle) == "FILE SET"
    extra.rmdir()
    model = bundle / "model.onnx"
    model.rename(bundle.parent / "model.onnx")
    model.symlink_to(bundle.parent / "model.onnx")
    assert refused(made, bundle) == "FILE SET"


def test_renamed_file_is_refused(made: Any, bundle: Path) -> None:
    (bundle / "card.md").rename(bundle / "card.txt")
    assert refused(made, bundle) == "FILE SET"


def test_wrong_key_and_thresholds(made: Any) -> None:
    trusted, stranger = load_key(made.pem), generate_key().public_key()
    for keys, threshold in (([stranger], 1), ([], 1), ([trusted, trusted], 2)):
        with pytest.raises(DeviceError, match="BAD SIGNATURE"):
            verify_bundle(made.folder, keys, threshold=threshold, allow_simulated=True)
    verify_bundle(made.folder, [stranger, trusted], allow_simulated=True)


def test_expired_and_simulated(made: Any, bundle: Path) -> None:
    year = timedelta(days=366)
    assert refused(made, bundle, now=datetime.now(UTC) + year) == "EXPIRED"
    assert refused(made, bundle, allow_simulated=False) == "SIMULATED"
    resign(made, bundle, lambda s: s["predicate"].update(simulated=False))
    check(made, bundle, allow_simulated=False)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: s.update(_type="other"), "BAD STATEMENT"),
        (lambda s: s.update(predicateType="other"), "BAD STATEMENT"),
        (lambda s: s.pop("predicate"), "BAD STATEMENT"),
        (lambda s: s["predicate"].pop("expires"), "BAD STATEMENT"),
        (lambda s: s["predicate"].update(expires="soon"), "BAD STATEMENT"),
        (lambda s: s["predicate"].update(expires="2027-01-01T00:00:00"), "BAD STATEMENT"),
        (lambda s: s["predicate"].update(minimum_runtime="99.0"), "RUNTIME"),
        (lambda s: s["predicate"].update(selftest_min_agreement=1.1), "SELFTEST"),
        (lambda s: s["subject"][0].update(name="../card.md"), "FILE SET"),
        (lambda s: s["subject"][0].update(name=".card"), "FILE SET"),
        (lambda s: s["subject"].append(s["subject"][0]), "FILE SET"),
        (lambda s: s["subject"][0].update(name="bundle.sig"), "FILE SET"),
        (lambda s: s["subject"].pop(), "FILE SET"),
        (lambda s: s.update(subject=7), "BAD STATEMENT"),
    ],
)
def test_signed_but_wrong_statements(
    change: Callable[[dict[str, Any]], object], code: str, made: Any, bundle: Path
) -> None:
    resign(made, bundle, change)
    assert refused(made, bundle) == code


def test_signature_comes_before_parsing(made: Any, bundle: Path) -> None:
    """Malformed JSON under a bad signature is a bad signature; nothing else was looked at."""
    envelope = make_envelope(b'{"subject": [', [generate_key()])
    (bundle / "bundle.sig").write_bytes(envelope)
    assert refused(made, bundle) == "BAD SIGNATURE"
    (bundle / "bundle.sig").write_bytes(make_envelope(b'{"subject": [', [made.key]))
    assert refused(made, bundle) == "BAD STATEMENT"


def test_payload_type_is_signed_too(made: Any, bundle: Path) -> None:
    outer = json.loads((bundle / "bundle.sig").read_bytes())
    payload = base64.b64decode(outer["payload"])
    other = make_envelope(payload, [made.key], payload_type="text/plain")
    for envelope in (other, other.replace(b"text/plain", IN_TOTO.encode())):
        (bundle / "bundle.sig").write_bytes(envelope)
        assert refused(made, bundle) == "BAD SIGNATURE"


def test_the_bytes_that_were_hashed_are_loaded(
    made: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file swapped between hash and load changes nothing."""
    checked = verify.checked_files

    def swap(*arguments: Any) -> dict[str, bytes]:
        files = checked(*arguments)
        (bundle / "model.onnx").write_bytes(b"another model")
        return files

    monkeypatch.setattr(verify, "checked_files", swap)
    check(made, bundle)


def test_fuzzed_envelopes_neither_crash_nor_pass(made: Any, bundle: Path) -> None:
    path, rng = bundle / "bundle.sig", random.Random(0)
    original = path.read_bytes()
    for _ in range(200):
        content = bytearray(original)
        for _ in range(rng.randint(1, 20)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        keyid_only = path.read_bytes() != original and _same_but_keyid(original, path.read_bytes())
        if not keyid_only:
            assert refused(made, bundle) == "BAD SIGNATURE"


def _same_but_keyid(one: bytes, two: bytes) -> bool:
    """Whether two envelopes differ only in what no one believes: the key's name, other members."""
    try:
        first, second = (
            (outer["payload"], outer["payloadType"], outer["signatures"][0]["sig"])
            for outer in (json.loads(one), json.loads(two))
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return False
    return bool(first == second)


def test_inputs_npy_npz_csv(made: Any, tmp_path: Path) -> None:
    verified = check(made, made.folder)
    x = made.test.x[:2]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, y=np.zeros(2))
    np.savez(tmp_path / "only.npz", pixels=x)
    rows = "\n".join(",".join(str(v) for v in record.ravel()) for record in x)
    (tmp_path / "x.csv").write_text(",".join(f"p{i}" for i in range(64)) + "\n" + rows + "\n")
    expected, _ = device.predict(verified, x)
    for name in ("x.npy", "x.npz", "only.npz", "x.csv"):
        labels, _ = device.predict(verified, device.read_input(tmp_path / name, (8, 8)))
        assert labels == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b"1,2,3\n"),
        ("x.csv", b"a,b\nc,d\n"),
        ("x.csv", b""),
        ("x.csv", b"\xff\xfe"),
        ("x.npy", b"no array"),
        ("x.npz", b"PK\x03\x04 no archive"),
    ],
)
def test_bad_inputs_are_exit_65(made: Any, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    words = ["predict", str(made.folder), str(path), "--key", str(made.pem), "--allow-simulated"]
    assert device.main(words) == 65


@pytest.mark.parametrize("shape", [(1, 9, 9), (64,), (0, 8, 8)])
def test_wrong_shapes_and_numbers_are_exit_65(made: Any, shape: tuple[int, ...]) -> None:
    verified = check(made, made.folder)
    for x in (np.zeros(shape), np.full((1, 8, 8), np.nan), np.array([["a"] * 8] * 8)):
        with pytest.raises(DeviceError) as caught:
            device.predict(verified, x)
        assert caught.value.exit_code == 65


def test_exit_codes_and_words(
    made: Any, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, rubbish = ["--key", str(made.pem)], tmp_path / "rubbish.pem"
    rubbish.write_text("no key")
    allowed = [*key, "--allow-simulated"]
    assert device.main(["verify", str(bundle), *allowed]) == 0
    assert "simulated: no privacy guarantee" in capsys.readouterr().out
    assert device.main(["verify", str(bundle), *key]) == 77
    assert "simulated: no privacy guarantee" in capsys.readouterr().err
    assert device.main(["verify", str(bundle), *key, "--json"]) == 77
    assert json.loads(capsys.readouterr().out)["code"] == "SIMULATED"
    assert device.main(["verify", str(tmp_path / "none"), *key]) == 66
    assert device.main(["verify", str(bundle), "--key", str(tmp_path / "none")]) == 66
    assert device.main(["verify", str(bundle), "--key", str(rubbish)]) == 65
    assert device.main(["predict", str(bundle), str(tmp_path / "none.npy"), *allowed]) == 66
    for words in ([], ["verify", str(bundle)], ["fly"], ["verify", str(bundle), "--no", *key]):
        with pytest.raises(SystemExit) as caught:
            device.main(words)
        assert caught.value.code == 64
    (bundle / "model.onnx").write_bytes(b"")
    assert device.main(["verify", str(bundle), *allowed]) == 77


def test_a_fresh_process_without_torch_or_collegium(made: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", made.test.x[:5])
    words = [str(made.folder), str(tmp_path / "x.npy"), "--key", str(made.pem), "--json"]
    done = run_device(["predict", *words, "--allow-simulated"])
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    expected, _ = device.predict(check(made, made.folder), made.test.x[:5])
    assert answer["labels"] == expected
    assert answer["note"] == "simulated: no privacy guarantee"
    stranger = tmp_path / "stranger.pub"
    save_public(generate_key().public_key(), stranger)
    done = run_device(["verify", str(made.folder), "--key", str(stranger), "--json"])
    assert done.returncode == 77 and json.loads(done.stdout)["code"] == "BAD SIGNATURE"


def test_the_script_alone_needs_three_packages(made: Any, tmp_path: Path) -> None:
    """Copied to an empty folder, it runs and imports none of ours, no torch, no onnx."""
    script = tmp_path / "device.py"
    script.write_text(device_script())
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import device; "
        f"code = device.main(['verify', {str(made.folder)!r}, '--key', {str(made.pem)!r}, "
        "'--allow-simulated', '--json']); "
        "print(sorted({'torch', 'onnx', 'collegium', 'pandas', 'sklearn'} & set(sys.modules))); "
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_module_imports_no_torch() -> None:
    program = "import collegium.edge.device, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
