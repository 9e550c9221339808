"""The way to the coordinator: one real TLS handshake, and each way in which it can be wrong."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import pytest

from collegium.client.preflight import Finding
from collegium.client.preflight_link import check_link
from collegium.server.certificates import ensure_certificates

Answer = Callable[[], bytes]


def page(*, ahead_s: float = 0.0, status: str = "200 OK", date: bool = True) -> bytes:
    """A health page whose clock is ``ahead_s`` ahead."""
    head = f"HTTP/1.1 {status}\r\n"
    head += f"Date: {formatdate(time.time() + ahead_s, usegmt=True)}\r\n" if date else ""
    return (head + "Content-Length: 2\r\n\r\nok").encode()


@contextmanager
def server(folder: Path | None, answer: Answer) -> Iterator[str]:
    """Serve one page on a loopback port; with ``folder`` over TLS. Yields the address."""
    context = None
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "certs" / "server.pem", folder / "keys" / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            peer.settimeout(10)
            try:
                talk = context.wrap_socket(peer, server_side=True) if context else peer
                with talk:
                    talk.recv(4096)
                    talk.sendall(answer())
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    thread.join(20)


def certificates(folder: Path, *, host: str = "127.0.0.1", days_ago: int = 0) -> bytes:
    """Make CA and server certificate as a coordinator does; return the CA's PEM."""
    now = datetime.now(UTC) - timedelta(days=days_ago)
    for part in ("keys", "certs"):
        (folder / part).mkdir(parents=True, mode=0o700)
    ensure_certificates(folder, consortium="test", host=host, now=now)
    return (folder / "certs" / "ca.crt").read_bytes()


def by_check(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_good_coordinator(tmp_path: Path) -> None:
    ca = certificates(tmp_path)
    with server(tmp_path, page) as address:
        found = by_check(check_link(address, ca))
    assert {name: finding.state for name, finding in found.items()} == {
        "certificate": "ok", "clock": "ok", "coordinator": "ok",
    }  # fmt: skip
    assert "127.0.0.1" in found["certificate"].text and "TLSv1.3" in found["coordinator"].text


@pytest.mark.parametrize(
    ("ahead_s", "state"),
    [(60, "warning"), (-3600, "problem"), (3600, "problem"), (-3.5, "warning")],
)
def test_the_clock(tmp_path: Path, ahead_s: float, state: str) -> None:
    ca = certificates(tmp_path)
    with server(tmp_path, lambda: page(ahead_s=ahead_s)) as address:
        assert by_check(check_link(address, ca))["clock"].state == state


def test_a_coordinator_that_tells_no_time_or_is_not_well(tmp_path: Path) -> None:
    ca = certificates(tmp_path)
    with server(tmp_path, lambda: page(date=False, status="503 Busy")) as address:
        found = by_check(check_link(address, ca))
    assert found["clock"].state == found["coordinator"].state == "unknown"


@pytest.mark.parametrize("status", ["\u00b2", "2e2", "-1", "99999999999", "", "\u0663\u0660\u0660"])
def test_a_status_that_is_none(tmp_path: Path, status: str) -> None:
    ca = certificates(tmp_path)
    raw = page().replace(b"200 OK", status.encode("latin-1", "replace"))
    with server(tmp_path, lambda: raw) as address:
        found = by_check(check_link(address, ca))
    assert found["coordinator"].state == "unknown"


def test_a_page_that_never_ends_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then: no single read times out, the whole exchange does."""
    monkeypatch.setattr("collegium.client.preflight_link._TIMEOUT_S", 1.0)
    ca, sent = certificates(tmp_path), list[int]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certs" / "server.pem", tmp_path / "keys" / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        peer, _ = listener.accept()
        with peer, context.wrap_socket(peer, server_side=True) as talk, suppress(OSError):
            talk.recv(4096)
            for number in range(400):  # 40 s, for one who waits
                talk.sendall(b"H")
                sent.append(number)
                threading.Event().wait(0.1)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    finding = only(check_link(f"127.0.0.1:{listener.getsockname()[1]}", ca))
    thread.join(60)
    listener.close()
    assert finding.state == "unknown" and "does not answer" in finding.text
    assert 0 < len(sent) < 400


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_wrong_ca(tmp_path: Path) -> None:
    certificates(tmp_path / "theirs")
    ours = certificates(tmp_path / "ours")
    with server(tmp_path / "theirs", page) as address:
        finding = only(check_link(address, ours))
    assert finding.state == "problem" and "not signed by the kit's CA" in finding.text


def test_an_expired_certificate(tmp_path: Path) -> None:
    ca = certificates(tmp_path, days_ago=500)
    with server(tmp_path, page) as address:
        finding = only(check_link(address, ca))
    assert finding.state == "problem" and "has expired" in finding.text


def test_a_certificate_of_tomorrow(tmp_path: Path) -> None:
    ca = certificates(tmp_path, days_ago=-3)
    with server(tmp_path, page) as address:
        finding = only(check_link(address, ca))
    assert finding.state == "problem" and "not valid yet" in finding.text


def test_a_wrong_host(tmp_path: Path) -> None:
    """The server's address is in no certificate: 127.0.0.2 is this machine, too."""
    ca = certificates(tmp_path)
    with server(tmp_path, page) as address:
        port = address.rpartition(":")[2]
        listener = socket.create_server(("127.0.0.2", 0))
        far = listener.getsockname()[1]

        def forward() -> None:
            peer, _ = listener.accept()
            with peer, socket.create_connection(("127.0.0.1", int(port))) as onward:
                onward.settimeout(5)
                peer.settimeout(5)
                try:
                    onward.sendall(peer.recv(65536))
                    peer.sendall(onward.recv(65536))
                    onward.sendall(peer.recv(65536))
                except OSError:
                    pass

        thread = threading.Thread(target=forward, daemon=True)
        thread.start()
        finding = only(check_link(f"127.0.0.2:{far}", ca))
        thread.join(20)
        listener.close()
    assert finding.state == "problem" and "for another host" in finding.text


def test_plaintext(tmp_path: Path) -> None:
    ca = certificates(tmp_path)
    with server(None, page) as address:
        finding = only(check_link(address, ca))
    assert finding.state == "problem" and "without encryption" in finding.text


def test_nobody_there(tmp_path: Path) -> None:
    ca = certificates(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert only(check_link(f"127.0.0.1:{port}", ca)).state == "unknown"
    assert only(check_link("no-such-host.invalid:1", ca)).state == "unknown"


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path) -> None:
    ca = certificates(tmp_path, days_ago=380)  # of 397
    with server(tmp_path, page) as address:
        assert by_check(check_link(address, ca))["certificate"].state == "warning"
