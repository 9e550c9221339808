"""Pull, predict, update, withdrawal, rollback: what a device takes and what it refuses."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.signing import fingerprint, generate_key
from collegium.edge.device import DeviceError, main
from collegium.edge.device import home as home_module
from collegium.edge.device.pull import Pulling
from collegium.edge.device.verbs_home import _progress
from collegium.edge.publication import add, refresh, withdraw

DAY = timedelta(days=1)


def refusal(home: Any, **options: Any) -> tuple[str, int]:
    """Return code and exit code with which a pull ends."""
    with pytest.raises(DeviceError) as caught:
        home.pull(Pulling(**options))
    return caught.value.code, caught.value.exit_code


def test_pull_predict_update_rollback_and_never_again(field_: Any) -> None:
    field_.publish(1)
    home = field_.home()
    assert home.pull().outcome == "updated" and field_.runs(home) == 1
    assert home.pull().outcome == "current"
    field_.publish(2)
    done = home.pull()
    assert (done.outcome, done.before, done.state.floor) == ("updated", 1, 2)
    assert field_.runs(home) == 2 and field_.state.previous.version == 1
    back = home.rollback()
    assert (back.outcome, back.before, field_.runs(home)) == ("went back", 2, 1)
    assert field_.state.floor == 2 and field_.state.previous is None
    assert home.pull().outcome == "current" and field_.runs(home) == 1
    with pytest.raises(DeviceError) as caught:
        home.rollback()
    assert (caught.value.code, caught.value.exit_code) == ("NO PREVIOUS", 66)
    field_.publish(3)
    assert home.pull().before == 1 and field_.runs(home) == 3
    assert field_.leftovers() == set()


def test_only_the_last_two_versions_are_kept(field_: Any) -> None:
    field_.publish(1)
    home = field_.home()
    for version in (1, 2, 3):
        if version > 1:
            field_.publish(version)
        home.pull()
    assert len(list(field_.store.bundles.iterdir())) == 2 and field_.leftovers() == set()


def test_the_device_verbs_do_the_same(
    field_: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    field_.publish(1, simulated=True)
    home, key = str(field_.path), fingerprint(field_.key.public_key())
    source = str(field_.publication)
    assert main(["init", home, "--from", source, "--key", key, "--allow-simulated"]) == 0
    assert key in capsys.readouterr().out
    assert main(["pull", home, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["version"] == 1 and captured.err == ""
    np.save(tmp_path / "x.npy", np.array([[0, 5]], dtype=np.float32))
    assert main(["predict", home, str(tmp_path / "x.npy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["v1-right"]
    assert main(["verify", home]) == 0
    assert main(["verify", home, "--key", key]) == 64
    assert main(["rollback", home]) == 66
    capsys.readouterr()
    assert main(["health", home, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["version"], answer["simulated"]) == (True, 1, True)
    assert answer["last_pull"]["outcome"] == "updated" and answer["days_left"] in (364, 365)
    assert set(answer["runtime"]) == {"python", "numpy", "onnxruntime", "cryptography"}
    assert main(["health", home]) == 0
    assert "pilot version 1" in capsys.readouterr().out


def test_a_simulated_bundle_needs_leave(field_: Any) -> None:
    field_.publish(1, simulated=True)
    home = field_.home()
    assert refusal(home) == ("SIMULATED", 77)
    home.pull(Pulling(allow_simulated=True))
    with pytest.raises(DeviceError, match="SIMULATED"):
        home.load()
    assert field_.runs(home, allow_simulated=True) == 1
    assert not home.health()["ok"] and home.health(allow_simulated=True)["ok"]


def test_wrong_key_revoked_key_and_one_signature_too_few(field_: Any) -> None:
    second, stranger = generate_key(), generate_key()
    names = [fingerprint(key.public_key()) for key in (field_.key, second, stranger)]
    field_.publish(1)
    home = field_.home(keys=(names[2],))
    assert refusal(home) == ("BAD SIGNATURE", 77)
    text = (field_.path / "device.toml").read_text()
    (field_.path / "device.toml").write_text(text.replace(names[2], names[0]))
    assert home.pull().outcome == "updated"
    (field_.path / "device.toml").write_text(
        text.replace(names[2], names[0]).replace("revoked = []", f'revoked = ["{names[0]}"]')
    )
    assert refusal(home) == ("BAD SIGNATURE", 77)
    with pytest.raises(DeviceError, match="revoked"):
        home.load()
    shutil.rmtree(field_.path)
    home = field_.home(keys=(names[0], names[1]), threshold=2)
    assert refusal(home) == ("BAD SIGNATURE", 77)  # index and bundle have one signature of two
    bundle = field_.bundle(2, keys=[field_.key, second])
    add(field_.publication, bundle, [field_.key, second])
    assert home.pull().state.current.version == 2


def test_an_older_index_a_fork_and_an_expired_one_are_refused(field_: Any, rewrite: Any) -> None:
    field_.publish(1)
    home, index = field_.home(), field_.publication / "index.sig"
    first = index.read_bytes()
    field_.publish(2)
    home.pull()
    newest = index.read_bytes()
    index.write_bytes(first)
    assert refusal(home) == ("ROLLBACK", 77)
    index.write_bytes(newest)
    rewrite(index, [field_.key], withdrawn=[], bundles=[])
    assert refusal(home) == ("ROLLBACK", 77)  # another index under the same number
    index.write_bytes(newest)
    assert refusal(home, clock=datetime.now(UTC) + 91 * DAY) == ("EXPIRED", 77)
    assert home.pull(Pulling(clock=datetime.now(UTC) + 91 * DAY, allow_expired=True))
    assert field_.runs(home) == 2


def test_a_publication_that_only_offers_older_versions_is_refused(
    field_: Any, rewrite: Any
) -> None:
    field_.publish(1)
    one = json.loads((field_.publication / "index.json").read_text())["offers"][0]
    field_.publish(2)
    home = field_.home()
    home.pull()
    entry = {name: one[name] for name in ("version", "digest", "folder")}
    rewrite(field_.publication / "index.sig", [field_.key], sequence=9,
            bundles=[entry | {"bytes": one["size_bytes"]}])  # fmt: skip
    assert refusal(home) == ("ROLLBACK", 77)
    assert field_.runs(home) == 2


def test_an_expired_bundle_is_not_taken_and_a_clock_set_back_revives_none(field_: Any) -> None:
    made = datetime.now(UTC)
    field_.publish(1, created=made - 5 * DAY, valid_days=10)
    home = field_.home()
    home.pull()
    later = made + 6 * DAY
    with pytest.raises(DeviceError, match="EXPIRED"):
        home.load(clock=later)
    assert home.health(clock=later)["code"] == "EXPIRED"
    assert home.load(clock=later, allow_expired=True).notes
    refresh(field_.publication, [field_.key], now=later)  # signed later: so it is later
    assert refusal(home) == ("EXPIRED", 77)
    with pytest.raises(DeviceError, match="EXPIRED"):
        home.load(clock=datetime(1970, 1, 1, tzinfo=UTC))
    shutil.rmtree(field_.path)
    assert refusal(field_.home()) == ("EXPIRED", 77)


def test_a_clock_that_jumps_ahead_leaves_no_trace(field_: Any) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    far = datetime(2199, 1, 1, tzinfo=UTC)
    assert refusal(home, clock=far) == ("EXPIRED", 77)
    home.pull(Pulling(clock=far, allow_expired=True))
    assert home.pull().outcome == "current" and field_.runs(home) == 1


def test_withdrawal_goes_to_the_newer_one_else_back_else_refuses(field_: Any) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    field_.publish(2)
    home.pull()
    withdraw(field_.publication, 2, "wrong labels", [field_.key])
    done = home.pull()
    assert (done.outcome, field_.runs(home)) == ("went back", 1)
    assert "wrong labels" in done.words and home.pull().outcome == "current"
    field_.publish(3)
    home.pull()
    withdraw(field_.publication, 3, "worse", [field_.key])
    field_.publish(4)
    assert home.pull().state.current.version == 4
    assert field_.state.previous.version == 1  # never the withdrawn one
    for version in (1, 4):
        withdraw(field_.publication, version, "all of them", [field_.key])
    assert refusal(home) == ("WITHDRAWN", 77)
    with pytest.raises(DeviceError, match="WITHDRAWN") as caught:
        home.load()
    assert caught.value.exit_code == 77 and field_.runs(home, allow_withdrawn=True) == 4
    health = home.health()
    assert (health["ok"], health["withdrawn"], health["code"]) == (False, True, "WITHDRAWN")
    with pytest.raises(DeviceError, match="WITHDRAWN"):
        home.rollback()
    assert main(["verify", str(field_.path), "--allow-withdrawn"]) == 0


def test_a_withdrawal_counts_although_the_newer_version_cannot_be_had(field_: Any) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    field_.publish(2)
    home.pull()
    withdraw(field_.publication, 2, "wrong", [field_.key])
    third = field_.publish(3)
    (third / "model.onnx").unlink()
    assert refusal(home) == ("MISSING", 66)
    assert field_.runs(home) == 1


def test_another_name_of_the_same_keys_is_refused(field_: Any, tmp_path: Path) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    shutil.rmtree(field_.publication)
    field_.publish(9, name="another")
    assert refusal(home) == ("OTHER NAME", 77)
    assert field_.runs(home) == 1


def test_one_bundle_alone_by_folder_and_never_after_an_index(field_: Any) -> None:
    bundle = field_.bundle(2)
    home = field_.home(bundle)
    assert home.pull().outcome == "updated" and home.pull().outcome == "current"
    shutil.rmtree(bundle)
    field_.bundle(1, out="bundle-2")
    assert refusal(home) == ("ROLLBACK", 77)
    shutil.rmtree(bundle)
    field_.bundle(3, out="bundle-2")
    home.pull()
    assert field_.runs(home) == 3
    home.rollback()
    assert refusal(home) == ("ROLLBACK", 77)
    field_.store.save(replace(field_.state, index_sequence=1))
    assert refusal(home) == ("ROLLBACK", 77)


@pytest.mark.parametrize("name", ["bundle.sig", "model.onnx", "labels.json", "weights.bin"])
def test_a_tampered_current_is_found_and_fetched_anew(field_: Any, name: str) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    path = field_.store.bundles / field_.state.current.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DeviceError) as caught:
        home.load()
    assert caught.value.code == ("BAD SIGNATURE" if name == "bundle.sig" else "HASH")
    assert home.health()["code"] == caught.value.code
    done = home.pull()
    assert done.outcome == "updated" and "damaged" in done.words
    assert field_.runs(home) == 1 and field_.leftovers() == set()
    assert home.pull().outcome == "current"


def test_an_older_signed_bundle_in_the_place_of_the_current_one(field_: Any) -> None:
    field_.publish(2)
    home = field_.home()
    home.pull()
    place = field_.store.bundles / field_.state.current.folder
    shutil.rmtree(place)
    shutil.copytree(field_.bundle(1), place)
    with pytest.raises(DeviceError, match="HASH"):
        home.load()
    shutil.rmtree(place)
    with pytest.raises(DeviceError, match="FILE SET"):
        home.load()
    assert home.pull().outcome == "updated" and field_.runs(home) == 2


def test_the_session_s_real_bundle(made: Any, field_: Any) -> None:
    field_.key = made.key
    add(field_.publication, made.folder, [made.key])
    home = field_.home(allow_simulated=True)
    home.pull()
    labels, _ = home.load().predict(made.test.x[:20])
    assert np.mean(np.array(labels) == made.test.y[:20].astype(str)) > 0.7
    assert home.health()["selftest_agreement"] >= 0.95


def test_a_reader_that_two_pulls_overtake_gets_what_runs_now(
    field_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    real, calls = home_module.verify_installed, []

    def overtaken(*words: Any) -> Any:
        calls.append(words)
        if len(calls) == 1:
            for version in (2, 3):
                field_.publish(version)
                home.pull()
        return real(*words)

    monkeypatch.setattr(home_module, "verify_installed", overtaken)
    assert field_.runs(home) == 3 and len(calls) == 2


def test_progress_is_one_line_on_a_terminal_and_silence_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tell = _progress(quiet=False)
    tell("model.onnx", 1_000_000, 2_500_000)
    tell("model.onnx", 2_500_000, 2_500_000)
    assert capsys.readouterr().err == ("\rmodel.onnx: 1.0 of 2.5 MB \rmodel.onnx: 2.5 of 2.5 MB \n")
    _progress(quiet=True)("model.onnx", 1, 2)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    _progress(quiet=False)("model.onnx", 1, 2)
    assert capsys.readouterr().err == ""
