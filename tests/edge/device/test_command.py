"""The device's command line: any order of words, safe lines, and a name for every failure."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from collegium.cli.edge import group
from collegium.core.signing import generate_key, save_public
from collegium.edge import device
from collegium.edge.device import DeviceError, fingerprint_of, signed_payload
from collegium.edge.device.verbs import shown

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
FULL = Path("/dev/full")
LASTING = {"created": "2020-01-01T00:00:00+00:00", "expires": "2126-01-01T00:00:00+00:00"}
PROGRAM = "import sys; from collegium.edge.device import main; sys.exit(main())"


def other_spelling(key: str) -> str:
    """The same 32 bytes: base64 ignores the last digit's lowest bits."""
    assert key.endswith("=")
    return key[:-2] + ALPHABET[ALPHABET.index(key[-2]) ^ 1] + "="


def spellings(bundle: Any) -> tuple[str, str, str]:
    key = fingerprint_of(bundle.keys[0].public_key())
    return key, other_spelling(key), str(bundle.pems[0])


def test_a_key_is_revoked_however_it_is_written(make: Any, capsys: Any) -> None:
    bundle = make(terms=LASTING)
    key, other, pem = spellings(bundle)
    assert other != key and base64.b64decode(other[8:]) == base64.b64decode(key[8:])
    envelope = (bundle.folder / "bundle.sig").read_bytes()
    for revoked in (key, other, pem):
        with pytest.raises(DeviceError, match="signed by a revoked key"):
            signed_payload(envelope, [bundle.keys[0].public_key()], 1, revoked=[revoked])
        words = ["verify", str(bundle.folder), "--key", pem, "--revoked", revoked]
        assert device.main(words) == 77
        assert "signed by a revoked key" in capsys.readouterr().err


def test_a_home_revokes_a_key_however_it_is_written(make: Any, tmp_path: Path, capsys: Any) -> None:
    bundle = make(terms=LASTING)
    key, other, pem = spellings(bundle)
    save_public(generate_key().public_key(), tmp_path / "new.pub")
    words = ["--from", str(bundle.folder), "--key", pem, "--key", str(tmp_path / "new.pub")]
    for number, revoked in enumerate((key, other, pem)):
        home = tmp_path / f"home{number}"
        assert device.main(["init", str(home), *words, "--revoked", revoked]) == 0
        assert f'revoked = ["{key}"]' in (home / "device.toml").read_text()
        assert device.main(["pull", str(home)]) == 77
        assert "signed by a revoked key" in capsys.readouterr().err
    home = tmp_path / "home"
    device.main(["init", str(home), *words])
    assert device.main(["pull", str(home)]) == 0
    settings = home / "device.toml"
    settings.write_text(settings.read_text().replace("revoked = []", f'revoked = ["{other}"]'))
    capsys.readouterr()
    assert device.main(["verify", str(home)]) == 77
    assert "signed by a revoked key" in capsys.readouterr().err


def test_inputs_may_stand_behind_flags_and_begin_with_a_dash(
    make: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make(terms=LASTING)
    monkeypatch.chdir(tmp_path)
    for name in ("x.npy", "-x.npy", "y.npy"):
        np.save(Path(name), np.zeros((1, 2, 3)))
    folder, key = str(bundle.folder), ["--key", str(bundle.pems[0])]
    cases = {
        ("x.npy",): [folder, *key, "x.npy"],
        ("x.npy", "y.npy"): [folder, "x.npy", *key, "y.npy"],
        ("-x.npy", "y.npy"): [folder, *key, "--", "-x.npy", "y.npy"],
        ("-x.npy",): [*key, "--", folder, "-x.npy"],
        ("x.npy", "-x.npy"): [folder, *key, "x.npy", "--", "-x.npy"],
    }
    for names, words in cases.items():
        assert device.main(["predict", *words]) == 0
        out = capsys.readouterr().out
        assert [f"{name}:1" in out for name in names] == [True] * len(names), words
        done = CliRunner().invoke(group, ["predict", *words], standalone_mode=False)
        assert (done.return_value, done.exception) == (0, None), words
    for wrong in (["--no", "x.npy"], ["-x.npy"]):
        with pytest.raises(SystemExit) as caught:
            device.main(["predict", folder, *key, *wrong])
        assert caught.value.code == 64
    with pytest.raises(SystemExit) as caught:
        device.main(["verify", folder, *key, "more"])
    assert caught.value.code == 64


def test_names_and_labels_cannot_speak_for_themselves(
    make: Any, tmp_path: Path, capsys: Any
) -> None:
    labels = ("a\x1b[31m\n5\t0.9", "b\u202e\x9b", "é ü\u00a0\U0001f600 日本")
    bundle = make(classes=labels, terms=LASTING | {"name": "clin\x1b]0;x\x07ics\r"})
    path = tmp_path / "x\ny.npy"
    np.save(path, np.random.default_rng(0).normal(size=(20, 2, 3)))
    words = ["predict", str(bundle.folder), str(path), "--key", str(bundle.pems[0])]
    assert device.main(words) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].startswith(r"verified: clin\x1b]0;x\x07ics\r, version 3")
    answers = [line.split("\t") for line in lines if "\t" in line]
    assert len(answers) == 20 and all(len(fields) == 3 for fields in answers)
    assert {f[0] for f in answers} == {r"a\x1b[31m\n5\t0.9", r"b\u202e\x9b", labels[2]}
    assert answers[0][2] == r"x\ny.npy:1"
    device.main([*words, "--json"])
    assert set(json.loads(capsys.readouterr().out)["labels"]) == set(labels)
    assert device.main(["verify", str(tmp_path / "no\x1b[2J"), *words[3:]]) == 66
    assert "\x1b" not in capsys.readouterr().err
    assert shown("\ud800 \u2028") == r"\ud800 \u2028"


def test_names_that_no_disk_takes_are_named_refusals(make: Any, capsys: Any) -> None:
    bundle, long = make(terms=LASTING), "x" * 300
    key = ["--key", str(bundle.pems[0])]
    for words in (
        ["verify", long, *key],
        ["verify", str(bundle.folder), "--key", long],
        ["predict", str(bundle.folder), long, *key],
        ["health", long],
        ["init", long, "--from", str(bundle.folder), *key],
    ):
        assert device.main(words) == 66, words
        heard = capsys.readouterr()
        assert "too long" in heard.err and heard.err.count("\n") == 1
        assert device.main([*words, "--json"]) == 66
        assert json.loads(capsys.readouterr().out)["ok"] is False


def test_a_selftest_of_no_records_is_refused(make: Any, capsys: Any) -> None:
    bundle, stream = make(terms=LASTING), io.BytesIO()
    np.savez(stream, x=np.array(1.0), labels=np.array([0]))
    bundle.replace("selftest.npz", stream.getvalue())
    assert device.main(["verify", str(bundle.folder), "--key", str(bundle.pems[0])]) == 77
    assert "SELFTEST" in capsys.readouterr().err


def apart(*words: str, program: str = PROGRAM, **options: Any) -> Any:
    environment = {**os.environ, **options.pop("env", {})}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, check=False, **given
    )


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_has_read_enough_is_no_failure(make: Any) -> None:
    bundle = make(terms=LASTING)
    reads, writes = os.pipe()
    os.close(reads)
    words = ["verify", str(bundle.folder), "--key", str(bundle.pems[0])]
    try:
        done = apart(*words, stdout=writes)
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_an_output_that_takes_nothing(make: Any) -> None:
    bundle = make(terms=LASTING)
    words = ["verify", str(bundle.folder), "--key", str(bundle.pems[0])]
    for more in ([], ["--json"]):
        with FULL.open("w") as full:
            done = apart(*words, *more, stdout=full)
        assert done.returncode == 75 and b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr


def test_a_terminal_without_the_letters(make: Any, tmp_path: Path) -> None:
    bundle = make(classes=("é", "\ud800", "c"), terms=LASTING)
    np.save(tmp_path / "ü x.npy", np.random.default_rng(0).normal(size=(20, 2, 3)))
    words = [str(bundle.folder), str(tmp_path / "ü x.npy"), "--key", str(bundle.pems[0])]
    done = apart("predict", *words, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, b"")
    told = {line.split(b"\t")[0] for line in done.stdout.splitlines()}
    assert {rb"\xe9", rb"\ud800"} <= told and rb"\xfc x.npy:20" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="limits an address space as Linux does")
def test_little_memory_is_enough_for_little_and_named_for_much(make: Any, tmp_path: Path) -> None:
    bundle = make(terms=LASTING)
    np.save(tmp_path / "x.npy", np.zeros((2, 2, 3), np.float32))
    np.save(tmp_path / "large.npy", np.zeros((6, 2, 3), np.float32))
    with (tmp_path / "large.npy").open("ab") as stream:
        stream.truncate(200_000_000)  # sparse
    program = (
        "import resource, sys\n"
        "from collegium.edge.device import main\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)\n"
        "sys.exit(main())\n"
    )
    words = ["predict", str(bundle.folder), "--key", str(bundle.pems[0])]
    done = apart(*words, str(tmp_path / "x.npy"), program=program)
    assert (done.returncode, done.stderr) == (0, b"")
    done = apart(*words, str(tmp_path / "large.npy"), program=program)
    assert done.returncode == 75 and done.stderr.startswith(b"MEMORY: ")
