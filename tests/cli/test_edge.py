"""``edge``: the device's own program under our name, and what a publisher does for devices."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from collegium.cli.edge import VERBS
from collegium.cli.main import run
from collegium.core.digest import sha256_hex
from collegium.core.signing import fingerprint, generate_key, save_private, save_public
from collegium.edge import device
from collegium.edge.bundle import Terms, json_bytes, npz_bytes, write_bundle
from collegium.edge.device.command import VERBS as DEVICE_VERBS


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Private keys a.pem and b.pem; a.pub and b.pub lie beside them."""
    for name in "ab":
        key = generate_key()
        save_private(key, tmp_path / f"{name}.pem")
        save_public(key.public_key(), tmp_path / f"{name}.pub")
    return [tmp_path / "a.pem", tmp_path / "b.pem"]


def bundle(folder: Path, key: Path, version: int) -> Path:
    from collegium.core.signing import load_private

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["logits"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    x = np.eye(2, dtype=np.float32)
    files = {
        "model.onnx": model.SerializeToString(),
        "input.json": json_bytes({"schema": 1, "kind": "array", "dtype": "float32", "shape": [2]}),
        "labels.json": json_bytes({"classes": ["left", "right"]}),
        "selftest.npz": npz_bytes(x=x, logits=x, labels=np.array([0, 1])),
        "card.md": b"# card\n",
    }
    terms = Terms(
        name="pilot", version=version, created=datetime.now(UTC), simulated=False, opset=20,
        lineage={}, gate={}, selftest_min_agreement=1.0,
    )  # fmt: skip
    out = folder / f"bundle-{version}"
    write_bundle(out, files, terms, [load_private(key)])
    return out


def test_the_verbs_of_the_device_are_all_here() -> None:
    assert set(VERBS) == {verb.name for verb in DEVICE_VERBS}


@pytest.mark.parametrize(
    "words",
    ["verify b --key k.pem --allow-simulated --json", "predict b x.npy --key k.pem --text -",
     "init h --from https://x --key k", "pull h --json", "rollback h", "health h"],
)  # fmt: skip
def test_words_are_handed_on(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    heard: list[list[str]] = []

    def main(arguments: list[str], *, prog: str) -> int:
        assert prog == "collegium edge"
        heard.append(arguments)
        return 77

    monkeypatch.setattr(device, "main", main)
    assert run(["edge", *words.split()]) == 77
    assert heard == [words.split()]


@pytest.mark.parametrize(
    "words",
    ["verify b", "predict b x.npy", "verify --key k", "pull", "init h", "pull h --no-such",
     "withdraw f 1 --key k", "index f b", "withdraw f x --reason r --key k", "sign b", "device"],
)  # fmt: skip
def test_wrong_usage_is_64(words: str) -> None:
    assert run(["edge", *words.split()]) == 64


def test_missing_bundle_is_an_error_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["edge", "verify", "nowhere", "--key", "none.pem"]) in (66, 77)
    assert run(["edge", "index", "nowhere", "none", "--key", "none.pem"]) == 66
    assert run(["edge", "sign", "nowhere", "--key", "none.pem"]) == 66
    assert "Traceback" not in capsys.readouterr().err


def test_publish_pull_withdraw_by_the_command_line(
    keys: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public, home, key = str(tmp_path / "public"), str(tmp_path / "home"), str(keys[0])

    def edge(*words: str) -> str:
        assert run(["edge", *words]) == 0, capsys.readouterr()
        return capsys.readouterr().out

    one, two = (str(bundle(tmp_path, keys[0], version)) for version in (1, 2))
    assert "versions 1" in edge("index", public, one, "--key", key)
    digest = sha256_hex(Path(public, "device.py").read_bytes())
    assert digest in edge("index", public, "--key", key)
    edge("init", home, "--from", public, "--key", str(tmp_path / "a.pub"))
    assert "version 1 runs now" in edge("pull", home)
    assert json.loads(edge("index", public, two, "--key", key, "--json"))["versions"] == [1, 2]
    edge("pull", home)
    assert "reason" not in edge("withdraw", public, "2", "--reason", "wrong labels", "--key", key)
    assert "wrong labels" in edge("pull", home)
    assert json.loads(edge("health", home, "--json"))["version"] == 1
    told = json.loads(edge("index", public, "--key", key, "--days", "5", "--json"))
    assert (told["sequence"], told["simulated"], told["device_digest"]) == (5, [], digest)
    np.save(tmp_path / "x.npy", np.array([[0, 1]], dtype=np.float32))
    assert "right" in edge("predict", home, str(tmp_path / "x.npy"))
    assert run(["edge", "withdraw", public, "7", "--reason", "x", "--key", key]) == 66
    assert run(["edge", "index", public, one, "--key", str(keys[1])]) == 77


def test_a_folder_that_was_put_back_does_not_revive_what_was_withdrawn(
    keys: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public, key = tmp_path / "public", ["--key", str(keys[0]), "--json"]
    for version in (1, 2):
        made = str(bundle(tmp_path, keys[0], version))
        assert run(["edge", "index", str(public), made, *key]) == 0
    old = (public / "index.sig").read_bytes()
    assert run(["edge", "withdraw", str(public), "2", "--reason", "wrong", *key]) == 0
    (public / "index.sig").write_bytes(old)
    capsys.readouterr()
    assert run(["edge", "index", str(public), *key]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["versions"], told["withdrawn"], told["sequence"]) == ([1], [2], 4)
    (public / "index.sig").write_bytes(old)
    book = ["--book", str(tmp_path / "another")]
    assert run(["edge", "index", str(public), *key, *book]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == [1, 2]
    assert run(["edge", "index", str(public), *key, "--book", str(tmp_path)]) == 66
    (tmp_path / "another").write_text("{}")
    assert run(["edge", "index", str(public), *key, *book]) == 65


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [f"index {LONG} --key a.pem", f"index {LONG} b --key a.pem", f"index f {LONG} --key a.pem",
     f"index f b --key {LONG}", f"withdraw {LONG} 1 --reason r --key a.pem",
     f"sign {LONG} --key a.pem", f"device --out {LONG}", "device --out a.pem/device.py"],
)  # fmt: skip
def test_a_path_that_cannot_be_is_no_bug(
    keys: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["edge", *words.split()]) == 66
    assert "Internal error" not in capsys.readouterr().err


def test_signing_shows_what_is_signed_and_asks(
    keys: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, second = str(bundle(tmp_path, keys[0], 1)), str(keys[1])
    assert run(["edge", "sign", path, "--key", second]) == 64
    shown = capsys.readouterr().out
    assert "pilot" in shown and "sha256:" in shown and "signed by" in shown
    trusted = ["--trusted", str(tmp_path / "a.pub")]
    assert run(["edge", "sign", path, "--key", second, "--yes", *trusted]) == 0
    assert "2 signatures" in capsys.readouterr().out
    assert run(["edge", "sign", path, "--key", second, "--yes", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["changed"] is False and len(answer["signers"]) == 2
    both = ["--key", str(tmp_path / "a.pub"), "--key", str(tmp_path / "b.pub")]
    assert run(["edge", "verify", path, *both, "--threshold", "2"]) == 0
    keys[1].chmod(0o644)
    assert run(["edge", "sign", path, "--key", second, "--yes"]) == 77


def test_the_device_s_file_runs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "device.py"
    assert run(["edge", "device", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == out.stat().st_size
    capsys.readouterr()
    assert run(["edge", "device", "--out", str(out)]) == 0  # the same again
    assert sha256_hex(out.read_bytes()) in capsys.readouterr().out
    key = fingerprint(generate_key().public_key())
    words = ["init", str(tmp_path / "home"), "--from", str(tmp_path), "--key", key]
    done = subprocess.run(
        [sys.executable, "-I", str(out), *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    out.write_text("my own notes")
    assert run(["edge", "device", "--out", str(out)]) == 73
    assert out.read_text() == "my own notes"
