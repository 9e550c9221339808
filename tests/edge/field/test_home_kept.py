"""A home touches nothing that is not its own, and believes nothing that is not well formed."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.core.signing import fingerprint
from collegium.edge.device import DeviceError, is_home, main
from collegium.edge.device.store import Settings, State, Store, Withdrawal

DIGEST = "sha256:" + "ab" * 32


def code_of(error: pytest.ExceptionInfo[DeviceError]) -> tuple[str, int]:
    return error.value.code, error.value.exit_code


@pytest.mark.parametrize("name", ["bundles/v7/model.onnx", "incoming/mail/1", "notes.txt"])
def test_init_wants_a_new_or_empty_folder(field_: Any, name: str) -> None:
    mine = field_.path / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(DeviceError) as caught:
        field_.home("https://example.org")
    assert code_of(caught) == ("EXISTS", 73)
    assert mine.read_text() == "mine" and not (field_.path / "state.json").exists()


def test_what_was_put_into_a_home_later_is_left_alone(field_: Any) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    stale = (f"bundles/v9-{'a' * 12}", f"bundles/v1-{'a' * 12}.2", f"incoming/{'a' * 64}")
    mine = ("bundles/v7", "bundles/v1-mine", "incoming/mail")
    for name in (*stale, *mine):
        (field_.path / name).mkdir()
        (field_.path / name / "file").write_text("x")
    home.pull()
    assert not any((field_.path / name).exists() for name in stale)
    assert all((field_.path / name / "file").exists() for name in mine)


def test_an_init_that_was_cut_off_and_a_lost_device_toml_begin_again(field_: Any) -> None:
    field_.publish(1)
    field_.home().pull()
    (field_.path / "device.toml").unlink()
    (field_.path / "device.toml.partial").write_text("x")
    assert field_.home().pull().outcome == "current" and field_.state.floor == 1


def test_no_source_is_no_source(field_: Any) -> None:
    key = fingerprint(field_.key.public_key())
    assert main(["init", str(field_.path), "--from", "", "--key", key]) == 64
    assert not field_.path.exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [("allow_simulated", '"false"'), ("allow_http", '"false"'), ("keys", "[1]"), ("keys", '"K"'),
     ("url", "5"), ("ca", "5"), ("threshold", '"1"'), ("threshold", "0.5"), ("threshold", "true"),
     ("revoked", '"abc"'), ("name", "5"), ("expired", "true")],
)  # fmt: skip
def test_each_setting_has_its_type(field_: Any, name: str, text: str) -> None:
    field_.publish(1, simulated=True)
    home = field_.home()
    path = field_.path / "device.toml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{name} = {text}" if each.startswith(f"{name} =") else each
                              for each in lines))  # fmt: skip
    for call in (home.pull, home.health, home.load, home.rollback):
        with pytest.raises(DeviceError, match=f"{name}.*`init`") as caught:
            call()
        assert code_of(caught) == ("BAD HOME", 65)


@pytest.mark.parametrize(
    "values",
    [{"last_pull": {"x": 1}}, {"last_pull": [1]}, {"last_pull": None},
     {"last_pull": {"time": 1, "outcome": "", "code": "", "reason": ""}},
     {"index_expires": "x"}, {"index_expires": "2026-01-01T00:00:00"}, {"index_digest": None},
     {"withdrawn": [{"version": 1, "digest": [], "reason": "x"}]}, {"floor": float("inf")},
     {"withdrawn": [{"version": 1, "digest": DIGEST, "reason": 5}]}, {"floor": -5}, {"name": 5},
     {"latest_time": "9999-12-31T23:59:59-10:00"}, {"refused": [5]}, {"refused": {"a": 1}},
     {"current": {"folder": "v1-ab", "version": True, "digest": DIGEST}}, {"revoked": "x"},
     {"current": {"folder": "v1-ab", "version": 1, "digest": 5}}, {"index_sequence": 1.5}],
)  # fmt: skip
def test_a_state_that_was_edited_by_hand_is_65_for_every_verb(
    field_: Any, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    field_.publish(1)
    field_.home()
    path = field_.path / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    for verb in ("health", "pull", "rollback", "verify"):
        assert main([verb, str(field_.path)]) == 65
        words = capsys.readouterr().err
        assert "BAD HOME" in words and next(iter(values)) in words and "`init`" in words


def test_folders_that_cannot_be_looked_at(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), Path("y" * 5000)):
        with pytest.raises(DeviceError) as caught:
            is_home(path)
        assert code_of(caught) == ("MISSING", 66)
        for verb in ("pull", "health", "rollback"):
            assert main([verb, str(path)]) == 66


def test_a_source_with_a_name_that_cannot_be(field_: Any) -> None:
    home = field_.home(field_.folder / ("x" * 300))
    with pytest.raises(DeviceError) as caught:
        home.pull()
    assert code_of(caught) == ("MISSING", 66) and field_.state.last_pull["code"] == "MISSING"


def test_many_long_withdrawals_leave_a_home_that_can_be_read(field_: Any, rewrite: Any) -> None:
    field_.publish(1)
    gone = [{"version": 9 + n, "digest": f"sha256:{n:064x}", "reason": "\U0001f600" * 300}
            for n in range(500)]  # fmt: skip
    rewrite(field_.publication / "index.sig", [field_.key], withdrawn=gone)
    home = field_.home()
    home.pull()
    assert home.pull().outcome == "current" and home.health()["ok"]
    kept = field_.state.withdrawn
    assert len(kept) == 500 and {len(each.reason) for each in kept} == {200}
    assert (field_.path / "state.json").stat().st_size < 700_000


def test_a_state_too_large_to_be_read_is_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    whole = store.save(State(name="\ud800 kept"))
    long = Withdrawal(version=1, digest=DIGEST, reason="x" * (1 << 22))
    with pytest.raises(DeviceError) as caught:
        store.save(replace(whole, withdrawn=(long,)))
    assert code_of(caught) == ("TOO LARGE", 77)
    assert store.state() == whole


def test_a_disk_without_locks_is_not_taken_for_another_pull(
    field_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    field_.home("https://example.org")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(DeviceError, match="locked") as caught, field_.store.locked():
        pass
    assert code_of(caught) == ("DISK", 66)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["index.sig", "bundle.sig", "model.onnx"])
def test_a_pipe_on_the_medium_is_refused_and_not_waited_for(field_: Any, name: str) -> None:
    folder = field_.publish(1)
    path = (field_.publication if name == "index.sig" else folder) / name
    path.unlink()
    os.mkfifo(path)
    home = field_.home()
    with pytest.raises(DeviceError, match="plain file") as caught:
        home.pull()
    assert code_of(caught) == ("FILE SET", 77) and field_.state.current is None


def test_whose_keys_were_believed_is_said(field_: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = field_.publish(1)
    key, home = fingerprint(field_.key.public_key()), field_.home()
    home.pull()
    capsys.readouterr()
    assert main(["verify", str(field_.path)]) == 0
    words = capsys.readouterr().out
    assert key in words and "device.toml" in words and "did not make" in words
    assert main(["verify", str(field_.path), "--key", key]) == 64
    assert "HOME/bundles/" in capsys.readouterr().err
    inside = field_.store.bundles / field_.state.current.folder
    for place in (folder, inside):
        assert main(["verify", str(place), "--key", key, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["trusted_keys"], answer["trusted_by"]) == ([key], "--key")


def test_settings_read_back_as_they_were_written(field_: Any) -> None:
    key = fingerprint(field_.key.public_key())
    field_.home(name="ü", allow_simulated=True, allow_http=True, expired="warn", revoked=(key,))
    assert field_.store.settings() == Settings(
        url=str(field_.publication.resolve()), keys=(key,), revoked=(key,), name="ü",
        allow_simulated=True, allow_http=True, expired="warn",
    )  # fmt: skip
