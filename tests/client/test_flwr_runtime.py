"""What the site relies on inside Flower: a release that changes it fails here first."""

import inspect
from pathlib import Path

import httpx
import pytest
from flwr.supernode import start_client_internal as loop

from collegium.client._flwr_runtime import LinkDown, RuntimeAddress, RuntimeLink
from collegium.client._flwr_supernode import FLOWER_POLL_S, FLOWER_REPLY_S
from collegium.client.supernode import HEARTBEAT_S, LEASE_S, SAFE, command


def test_the_pauses_of_the_supernode_are_the_ones_that_we_shorten() -> None:
    source = inspect.getsource(loop)
    assert source.count("time.sleep(") == 3  # no message; no reply; a reply's content
    assert f"time.sleep({FLOWER_POLL_S:g})" in source
    assert source.count(f"time.sleep({FLOWER_REPLY_S:g})") == 2


def test_the_heartbeat_is_the_one_that_we_set() -> None:
    from flwr.common.constant import HEARTBEAT_MIN_INTERVAL, HEARTBEAT_PATIENCE
    from flwr.supercore import heartbeat
    from flwr.supernode import fleet_http_connection as fleet

    assert heartbeat.HEARTBEAT_DEFAULT_INTERVAL == fleet.HEARTBEAT_DEFAULT_INTERVAL == 30
    assert HEARTBEAT_MIN_INTERVAL <= HEARTBEAT_S
    assert LEASE_S == HEARTBEAT_PATIENCE * HEARTBEAT_S


def test_nobody_at_the_port_is_told_as_link_down() -> None:
    with RuntimeLink(RuntimeAddress(port=1)) as link, pytest.raises(LinkDown):
        link.next_task()


def test_a_missing_socket_is_told_as_link_down(tmp_path: Path) -> None:
    address = RuntimeAddress(port=1, socket=tmp_path / "no.sock")
    with RuntimeLink(address) as link, pytest.raises(LinkDown):
        link.next_task()


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with RuntimeLink(RuntimeAddress(port=1)) as link:
        assert isinstance(link._client._client, httpx.Client)
        assert not link._client._client._mounts


def test_the_supernode_is_started_with_safe_settings(tmp_path: Path) -> None:
    words = command(
        superlink="h:1", ca=tmp_path / "ca", key=tmp_path / "k", port=9094, poll_s=0.5,
        home=tmp_path / "home", secret=tmp_path / "s",
    )  # fmt: skip
    assert words[1:3] == ["-m", "collegium.client.supernode"]
    assert SAFE["FLWR_TELEMETRY_ENABLED"] == "0"
    from collegium.client.supernode import _parser

    args = _parser().parse_args(words[3:])
    assert (args.superlink, args.port, args.poll) == ("h:1", 9094, 0.5)
