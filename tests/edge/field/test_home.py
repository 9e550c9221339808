"""A home's settings and state: written whole, read strictly, changed by one writer at a time."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collegium.core.signing import fingerprint, generate_key, save_public
from collegium.edge.device import DeviceError, Home, main, make_home
from collegium.edge.device.store import Installed, Settings, State, Store, Withdrawal

DIGEST = "sha256:" + "ab" * 32


def code_of(error: pytest.ExceptionInfo[DeviceError]) -> tuple[str, int]:
    return error.value.code, error.value.exit_code


def test_init_writes_what_it_was_told(field_: Any) -> None:
    pem = field_.folder / "trusted.pub"
    save_public(field_.key.public_key(), pem)
    other = fingerprint(generate_key().public_key())
    field_.home("https://example.org/a/", keys=(str(pem), other, str(pem)), threshold=2, name="p")
    found = field_.store.settings()
    assert found.keys == (fingerprint(field_.key.public_key()), other)
    assert (found.url, found.threshold, found.name) == ("https://example.org/a", 2, "p")
    assert field_.state == State(name="p")
    with pytest.raises(DeviceError) as caught:
        field_.home("https://example.org")
    assert code_of(caught) == ("EXISTS", 73)
    assert field_.store.settings() == found


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"url": "http://example.org/a"}, ("NO TLS", 77)),
        ({"url": "ftp://example.org/a"}, ("NO TLS", 77)),
        ({"url": "https://me:secret@example.org/a"}, ("BAD ADDRESS", 64)),
        ({"url": "https://example.org/a?token=1"}, ("BAD ADDRESS", 64)),
        ({"url": "https://[::1/a"}, ("BAD ADDRESS", 64)),
        ({"url": "https:///a"}, ("BAD ADDRESS", 64)),
        ({"url": "https://a\nb"}, ("BAD ADDRESS", 64)),
        ({"threshold": 2}, ("USAGE", 64)),
        ({"threshold": 0}, ("USAGE", 64)),
        ({"keys": ()}, ("USAGE", 64)),
        ({"keys": ("ed25519:AAAA",)}, ("BAD KEY", 65)),
        ({"keys": ("no-such.pem",)}, ("MISSING", 66)),
        ({"revoked": ("ed25519:",)}, ("BAD KEY", 65)),
    ],
)
def test_settings_that_cannot_work_make_no_home(
    field_: Any, settings: dict[str, Any], code: tuple[str, int]
) -> None:
    with pytest.raises(DeviceError) as caught:
        field_.home(**({"url": "https://example.org"} | settings))
    assert code_of(caught) == code
    assert not (field_.path / "device.toml").exists()


def test_http_is_for_this_machine_or_by_explicit_word(field_: Any) -> None:
    for number, url in enumerate(("http://127.0.0.1:1", "http://localhost/x", "http://[::1]:2/x")):
        make_home(
            field_.folder / str(number),
            Settings(url=url, keys=(fingerprint(field_.key.public_key()),)),
        )
    field_.home("http://example.org", allow_http=True)
    assert field_.store.settings().allow_http


def test_a_folder_without_settings_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        Home(tmp_path)
    assert code_of(caught) == ("MISSING", 66)
    assert main(["health", str(tmp_path)]) == 66
    assert main(["pull", str(tmp_path / "none")]) == 66


def test_nothing_pulled_yet(field_: Any, capsys: pytest.CaptureFixture[str]) -> None:
    home = field_.home("https://example.org")
    for call in (home.load, home.rollback):
        with pytest.raises(DeviceError) as caught:
            call()
        assert caught.value.exit_code == 66
    assert main(["health", str(field_.path), "--json"]) == 66
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["code"], answer["version"]) == (False, "MISSING", None)


@pytest.mark.parametrize(
    "text",
    ["", "x =", "url = 1", 'url = "u"', 'url = "u"\nkeys = []', 'url = "u"\nkeys = ["a.pem"]',
     'url = "u"\nkeys = ["KEY"]\nthreshold = 2', 'url = "u"\nkeys = ["KEY"]\nexpired = "never"',
     'url = "u"\nkeys = ["KEY"]\ncolour = "red"'],
)  # fmt: skip
def test_wrong_settings_are_65(field_: Any, text: str) -> None:
    home = field_.home("https://example.org")
    key = fingerprint(field_.key.public_key())
    (field_.path / "device.toml").write_text(text.replace("KEY", key))
    with pytest.raises(DeviceError) as caught:
        home.pull()
    assert code_of(caught) == ("BAD HOME", 65)


@given(junk=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_state_is_65_and_no_traceback(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "state.json").write_bytes(junk)
    with pytest.raises(DeviceError) as caught:
        Store(tmp_path).state()
    assert code_of(caught) == ("BAD HOME", 65)


def test_a_half_understood_state_is_65(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(State())
    whole = json.loads((tmp_path / "state.json").read_text())
    wrong: list[dict[str, Any]] = [
        {"schema": 2}, {"floor": "x"}, {"current": {"folder": "a"}}, {"refused": None},
        {"latest_time": "noon"}, {"latest_time": "2026-01-01"}, {"new": 1}, {"withdrawn": [1]},
        {"current": {"folder": "../..", "version": 1, "digest": DIGEST}},
        {"current": {"folder": "a", "version": "1", "digest": DIGEST}},
    ]  # fmt: skip
    for values in wrong:
        (tmp_path / "state.json").write_text(json.dumps(whole | values))
        with pytest.raises(DeviceError) as caught:
            store.state()
        assert code_of(caught) == ("BAD HOME", 65), values


installed = st.builds(
    Installed, folder=st.just("v1-ab"), version=st.integers(0, 9), digest=st.just(DIGEST)
)


@given(
    state=st.builds(
        State,
        name=st.text(max_size=5),
        current=st.none() | installed,
        previous=st.none() | installed,
        floor=st.integers(0, 1 << 62),
        refused=st.lists(st.just(DIGEST), max_size=2).map(tuple),
        withdrawn=st.lists(
            st.builds(Withdrawal, version=st.integers(0, 9), digest=st.just(DIGEST),
                      reason=st.text(max_size=9)), max_size=2).map(tuple),
    )
)  # fmt: skip
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_state_is_read_as_it_was_saved(tmp_path: Path, state: State) -> None:
    store = Store(tmp_path)
    store.save(state)
    assert store.state() == state


def test_time_never_goes_back() -> None:
    late = datetime(2026, 5, 1, tzinfo=UTC)
    state = State(latest_time=late.isoformat())
    assert state.now(datetime(1970, 1, 1, tzinfo=UTC)) == late
    assert state.now(late + timedelta(days=1)) == late + timedelta(days=1)
    assert replace(state, latest_time="").now(late) == late


def test_one_writer_at_a_time(field_: Any) -> None:
    home = field_.home("https://example.org")
    with field_.store.locked():
        for call in (home.pull, home.rollback):
            with pytest.raises(DeviceError) as caught:
                call()
            assert code_of(caught) == ("BUSY", 75)
    with field_.store.locked():
        pass
    assert field_.state.last_pull == {}
