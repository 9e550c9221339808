"""The commands of SuperLink and SuperExec: safe flags, own state, one loopback port."""

import sys
from pathlib import Path

import pytest

from collegium.core.errors import Interrupted, NotAvailable
from collegium.server.coordinator import Home
from collegium.server.coordinator_flower import (
    flower_environment,
    is_healthy,
    superexec,
    superlink,
    wait_ready,
)
from collegium.server.processes import Child, Command, environment


def after(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_the_superlink_is_on_loopback_with_every_safe_flag(tmp_path: Path) -> None:
    argv = superlink(Home(folder=tmp_path), tmp_path / "state", 9100).command.argv
    assert after(argv, "--host") == "127.0.0.1"
    assert after(argv, "--port") == "9100"
    assert after(argv, "--isolation") == "process"
    assert after(argv, "--database") == str(tmp_path / "state" / "superlink.db")
    assert after(argv, "--superexec-auth-secret-file").endswith("keys/superexec.secret")
    for flag in ("--enable-supernode-auth", "--disable-runtime-dependency-installation"):
        assert flag in argv
    assert "--insecure" not in argv


def test_the_superexec_checks_the_superlink_and_installs_nothing(tmp_path: Path) -> None:
    argv = superexec(Home(folder=tmp_path), tmp_path, 9100).command.argv
    assert after(argv, "--runtime-api-address") == "127.0.0.1:9100"
    assert after(argv, "--root-certificates").endswith("certs/ca.crt")
    assert not {"--insecure", "--allow-runtime-dependency-installation"} & set(argv)


def test_no_secret_is_in_a_command_or_its_environment(tmp_path: Path) -> None:
    home = Home(folder=tmp_path)
    home.keys.mkdir(parents=True)
    (home.keys / "superexec.secret").write_bytes(b"canary-4711")
    for child in (superlink(home, tmp_path, 1), superexec(home, tmp_path, 1)):
        told = [*child.command.argv, *child.command.environment.values()]
        assert not [text for text in told if "canary" in text]


def test_flower_tells_nobody_and_keeps_its_state_here(tmp_path: Path) -> None:
    found = flower_environment(tmp_path)
    assert found["FLWR_HOME"] == str(tmp_path / "flwr")
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found["COLLEGIUM_STATE"] == str(tmp_path)


def _child(tmp_path: Path, code: str) -> Child:
    argv = (sys.executable, "-c", code)
    return Child(Command(name="flower", argv=argv, environment=environment({}), log=tmp_path / "l"))


def test_one_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    child = _child(tmp_path, "print('the port is taken'); raise SystemExit(3)")
    child.start()
    with pytest.raises(NotAvailable, match="exit code 3"):
        wait_ready(child, lambda: False)
    child.stop()
    assert "the port is taken" in child.tail()


def test_one_that_never_answers_is_given_up(tmp_path: Path) -> None:
    child = _child(tmp_path, "import time; time.sleep(60)")
    child.start()
    with pytest.raises(Interrupted, match="not ready"):
        wait_ready(child, lambda: False, within_s=0.3)
    child.stop()


def test_nobody_is_not_healthy(tmp_path: Path, make_federation) -> None:  # type: ignore[no-untyped-def]
    ca = make_federation().home / "coordinator" / "certs" / "ca.crt"
    assert not is_healthy(ca, 1)
