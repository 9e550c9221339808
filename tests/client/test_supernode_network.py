"""A real SuperNode in a hostile network: it tells nobody anything who is not the coordinator."""

import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collegium.client.supernode import command
from collegium.core.enroll import SUPERNODE_KEY, enroll_site
from collegium.server.certificates import Certificates, ensure_certificates

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="sites run on Linux"),
]

CASES = ("good", "wrong CA", "expired", "wrong host", "plaintext")
LOOK_S = 12.0


class Listener:
    """A server on loopback that counts what reaches it after TLS: bytes of a request."""

    def __init__(self, certificates: Certificates | None, host: str) -> None:
        self.requests, self.dials = 0, 0
        self._socket = socket.create_server((host, 0))
        self.port = int(self._socket.getsockname()[1])
        self._context = None
        if certificates is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificates.server_path, certificates.server_key)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            self.dials += 1
            plain.settimeout(2)
            with plain:
                try:
                    if self._context is None:
                        # a TLS hello is no request: it names no site and holds no signature
                        self.requests += not plain.recv(16).startswith(b"\x16\x03")
                        continue
                    with self._context.wrap_socket(plain, server_side=True) as safe:
                        self.requests += b"HTTP/1.1" in safe.recv(4096)
                except OSError:
                    continue


@contextmanager
def listening(certificates: Certificates | None, host: str) -> Iterator[Listener]:
    listener = Listener(certificates, host)
    try:
        yield listener
    finally:
        listener.close()


def test_only_the_coordinator_of_the_kit_hears_anything(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    good = ensure_certificates(tmp_path / "good", consortium="t", host="localhost")
    other = ensure_certificates(tmp_path / "other", consortium="t", host="localhost")
    old = ensure_certificates(
        tmp_path / "old", consortium="t", host="localhost", now=now - timedelta(days=398)
    )
    elsewhere = ensure_certificates(tmp_path / "elsewhere", consortium="t", host="example.org")
    served = {"good": good, "wrong CA": good, "expired": old, "wrong host": elsewhere}
    trusted = served | {"wrong CA": other, "plaintext": good}
    # every certificate of ours names localhost and 127.0.0.1, and none this one
    hosts = dict.fromkeys(CASES, "127.0.0.1") | {"wrong host": "127.0.0.2"}
    enroll_site("north", "North", tmp_path / "keys")
    with ExitStack() as stack:
        doors = {
            case: stack.enter_context(listening(served.get(case), hosts[case])) for case in CASES
        }
        for number, case in enumerate(CASES):
            words = command(
                superlink=f"{hosts[case]}:{doors[case].port}",
                ca=trusted[case].ca_path,
                key=tmp_path / "keys" / SUPERNODE_KEY,
                port=_free_port(),
                poll_s=0.5,
                home=tmp_path / f"home{number}",
            )
            stack.enter_context(_running(words, tmp_path / f"{number}.log"))
        until = time.monotonic() + 60
        while not all(door.dials for door in doors.values()) and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(LOOK_S if until > time.monotonic() else 0)
        assert all(door.dials for door in doors.values()), {c: d.dials for c, d in doors.items()}
        assert {case: bool(door.requests) for case, door in doors.items()} == {
            case: case == "good" for case in CASES
        }


@contextmanager
def _running(words: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as stream:
        child = subprocess.Popen(words, stdout=stream, stderr=stream)
    try:
        yield
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
