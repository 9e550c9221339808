"""Over HTTP: resumed, retried, and no server can make a device take what was not signed."""

import errno
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.core.signing import fingerprint
from collegium.edge.device import DeviceError
from collegium.edge.device.fetch_web import Patience, WebSource, check_address
from collegium.edge.device.pull import Pulling
from collegium.edge.single_file import device_script

BIG = "weights.bin"  # 300,000 bytes, other ones in each version


def refusal(home: Any, pulling: Pulling) -> tuple[str, int]:
    with pytest.raises(DeviceError) as caught:
        home.pull(pulling)
    return caught.value.code, caught.value.exit_code


def test_pull_update_and_rollback_over_http(field_: Any, web: Any, hasty: Pulling) -> None:
    field_.publish(1)
    home = field_.home(web.url)
    assert home.pull(hasty).outcome == "updated"
    field_.publish(2)
    web.manners.asked.clear()
    assert home.pull(hasty).before == 1 and field_.runs(home) == 2
    asked = {name for name, _ in web.manners.asked}
    assert BIG in asked and not asked & {"card.md", "input.json"}  # these lie here already
    home.rollback()
    assert home.pull(hasty).outcome == "current" and field_.runs(home) == 1


def test_a_break_is_resumed_within_one_pull(field_: Any, web: Any, hasty: Pulling) -> None:
    field_.publish(1)
    web.manners.cut[BIG] = 200_000
    home = field_.home(web.url)
    assert home.pull(hasty).outcome == "updated"
    assert [asked for name, asked in web.manners.asked if name == BIG] == ["", "bytes=200000-"]


def test_the_next_pull_goes_on_where_one_ended(field_: Any, web: Any, hasty: Pulling) -> None:
    field_.publish(1)
    web.manners.cut[BIG] = 100_000
    once = replace(hasty, patience=Patience(timeout_s=2, attempts=1, most=1))
    home = field_.home(web.url)
    assert refusal(home, once) == ("NETWORK", 75)
    assert field_.state.current is None and field_.state.last_pull["code"] == "NETWORK"
    web.manners.asked.clear()
    assert home.pull(hasty).outcome == "updated"
    assert (BIG, "bytes=100000-") in web.manners.asked
    assert "model.onnx" not in {name for name, _ in web.manners.asked}


@pytest.mark.parametrize("trait", ["no ranges", "another part", "bad first part", "too long here"])
def test_a_server_or_a_first_part_that_cannot_be_continued(
    field_: Any, web: Any, hasty: Pulling, trait: str
) -> None:
    field_.publish(1)
    web.manners.cut[BIG] = 100_000
    home = field_.home(web.url)
    once = replace(hasty, patience=Patience(timeout_s=2, attempts=1, most=1))
    assert refusal(home, once) == ("NETWORK", 75)
    part = next(field_.store.incoming.iterdir()) / BIG
    assert part.stat().st_size == 100_000
    if trait == "no ranges":
        web.manners.ranges = False
    elif trait == "another part":
        web.manners.shift = 7
    elif trait == "bad first part":
        part.write_bytes(bytes(100_000))
    else:
        part.write_bytes(bytes(300_001))
    assert home.pull(hasty).outcome == "updated"
    assert field_.runs(home) == 1


def test_more_bytes_than_were_signed_are_refused(field_: Any, web: Any, hasty: Pulling) -> None:
    field_.publish(1)
    web.manners.extra[BIG] = b"x"
    home = field_.home(web.url)
    assert refusal(home, hasty) == ("TOO LARGE", 77)
    assert field_.state.current is None
    web.manners.extra.clear()
    assert home.pull(hasty).outcome == "updated"


def test_other_bytes_of_the_same_length_are_refused(field_: Any, web: Any, hasty: Pulling) -> None:
    field_.publish(1)
    home = field_.home(web.url)
    home.pull(hasty)
    field_.publish(2)
    web.manners.replace[BIG] = bytes(300_000)
    assert refusal(home, hasty) == ("HASH", 77)
    assert field_.runs(home) == 1
    web.manners.replace.clear()
    assert home.pull(hasty).before == 1


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([503], None),
        ([503, 500], ("NETWORK", 75)),
        ([429], None),
        ([404], ("MISSING", 66)),
        ([403], ("MISSING", 66)),
    ],
)
def test_statuses(
    field_: Any, web: Any, hasty: Pulling, statuses: list[int], code: tuple[str, int] | None
) -> None:
    field_.publish(1)
    home = field_.home(web.url)
    for name in ("index.sig", BIG):
        web.manners.status[name] = list(statuses)
        if code is None:
            assert home.pull(hasty).state.current.version == 1
        else:
            assert refusal(home, hasty) == code


def test_redirects(field_: Any, web: Any, hasty: Pulling) -> None:
    field_.publish(1)
    home = field_.home(web.url)
    for place in ("http://198.51.100.1/x", "ftp://localhost/x", "file:///etc/passwd"):
        web.manners.redirect["index.sig"] = place
        assert refusal(home, hasty)[0] in ("NO TLS", "MISSING")
    web.manners.redirect["index.sig"] = f"{web.url}/index.sig"
    assert refusal(home, hasty)[1] in (66, 75)  # in circles
    web.manners.redirect["index.sig"] = f"{web.url}/again.sig"
    (field_.publication / "again.sig").write_bytes((field_.publication / "index.sig").read_bytes())
    assert home.pull(hasty).outcome == "updated"
    with pytest.raises(DeviceError, match="NO TLS"):
        check_address("http://localhost/x", allow_http=True, before="https://example.org/x")


def test_one_bundle_by_its_signature_and_a_publication_without_index(
    field_: Any, web: Any, hasty: Pulling
) -> None:
    folder = field_.publish(3)
    home = field_.home(f"{web.url}/{folder.name}/bundle.sig")
    assert home.pull(hasty).state.current.version == 3
    other = field_.folder / "other"
    field_.path = other
    home = field_.home(f"{web.url}/{folder.name}")
    with pytest.raises(DeviceError, match=r"bundle\.sig") as caught:
        home.pull(hasty)
    assert caught.value.exit_code == 66


def test_no_server_and_a_silent_one(field_: Any, web: Any, hasty: Pulling) -> None:
    field_.publish(1)
    home = field_.home("http://127.0.0.1:9")
    assert refusal(home, hasty) == ("NETWORK", 75)
    slow = Patience(most=1, slow_s=0.0, slowest_bytes_s=1e12)
    with pytest.raises(DeviceError, match="hardly"):
        field_.path = field_.folder / "second"
        field_.home(web.url).pull(replace(hasty, patience=slow))


def test_a_ca_file_that_is_none(field_: Any, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    home = field_.home("https://localhost:9", ca=str(tmp_path / "ca.pem"))
    assert refusal(home, Pulling()) == ("BAD KEY", 65)


def test_tls_with_a_private_authority_and_without(field_: Any, web: Any, tmp_path: Path) -> None:
    import http.server
    import threading

    from cryptography.hazmat.primitives import serialization

    field_.publish(1)
    pem, key = _certificate()
    (tmp_path / "ca.pem").write_bytes(pem)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(field_.publication), **kwargs)

        def log_message(self, *_: Any) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None: ...

    server = Server(("127.0.0.1", 0), Quiet)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        home = field_.home(f"https://localhost:{server.server_port}")
        assert refusal(home, Pulling(patience=Patience(attempts=2, pause_s=0.01))) == ("TLS", 77)
        assert home.pull(Pulling(ca=str(tmp_path / "ca.pem"))).outcome == "updated"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _certificate() -> tuple[bytes, Any]:
    """Return a self-signed certificate for localhost and its key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM), key


def test_the_one_file_pulls_in_a_process_of_its_own(field_: Any, web: Any, tmp_path: Path) -> None:
    field_.publish(1)
    script, home = tmp_path / "device.py", str(tmp_path / "home")
    script.write_text(device_script())

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(script), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    key = fingerprint(field_.key.public_key())
    assert call("init", home, "--from", web.url, "--key", key).returncode == 0
    done = call("pull", home)
    assert (done.returncode, done.stderr) == (0, "") and "version 1" in done.stdout
    assert call("health", home, "--json").returncode == 0
    web.manners.status["index.sig"] = [404]
    assert call("pull", home).returncode == 66


def test_a_full_disk_by_its_number(field_: Any, web: Any, hasty: Pulling) -> None:
    """A write that the system answers with ENOSPC; real full disks are in test_pull_faults."""
    from collegium.edge.device import store

    error = store.disk_error(OSError(errno.ENOSPC, "No space left on device"))
    assert (error.code, error.exit_code) == ("FULL DISK", 75)
    assert store.disk_error(OSError(errno.EROFS, "Read-only file system")).exit_code == 66


def test_an_unfinished_answer_of_a_small_file_is_tried_again(web: Any, field_: Any) -> None:
    field_.publish(1)
    web.manners.cut["index.sig"] = 10
    source = WebSource(web.url, patience=Patience(attempts=2, pause_s=0.01))
    whole = (field_.publication / "index.sig").read_bytes()
    assert source.read("index.sig", 1 << 20) == whole
    with pytest.raises(DeviceError, match="TOO LARGE"):
        source.read("index.sig", 10)


@pytest.mark.parametrize(
    "url",
    ["https://host/mod\u00e8les", "https://host/a b", "https://a..b/", "https://.a/", "https://h\u00f6st/",
     f"https://{'a' * 64}.org/", "https://a%b/"],
)  # fmt: skip
def test_addresses_that_can_never_be_asked(url: str) -> None:
    with pytest.raises(DeviceError) as caught:
        check_address(url, allow_http=False)
    assert (caught.value.code, caught.value.exit_code) == ("BAD ADDRESS", 64)


def test_addresses_that_can_be_asked() -> None:
    for url in (
        "https://example.org./a",
        "https://[::1]:8/x",
        "https://xn--hst-sna.org/%20",
        "https://a_b",
    ):
        check_address(url, allow_http=False)


@pytest.mark.parametrize(
    "place", ["http://[bad", "https://a..b/x", "http://127.0.0.1:99999/", "https://me:secret@h/x"]
)
def test_a_redirect_to_nowhere_is_the_server_s_fault(
    field_: Any, web: Any, hasty: Pulling, place: str
) -> None:
    field_.publish(1)
    home = field_.home(web.url)
    web.manners.redirect["index.sig"] = place
    assert refusal(home, hasty) == ("BAD REDIRECT", 77)
    assert field_.state.last_pull["code"] == "BAD REDIRECT"


@pytest.mark.parametrize("where", ["header", "body", "chunks"])
def test_a_server_that_drips_does_not_hold_the_home(
    field_: Any, tmp_path: Path, where: str
) -> None:
    import socketserver
    import threading

    ended = threading.Event()

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            begin = {
                "header": b"HTTP/1.1 200 OK\r\nX: ",
                "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
                "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            }[where]
            self.request.recv(1 << 16)
            try:
                self.request.sendall(begin)
                for _ in range(1000):
                    self.request.sendall(b"0")
                    if ended.wait(0.02):
                        return
            except OSError:
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            home = field_.home(f"http://127.0.0.1:{server.server_address[1]}")
            patience = Patience(attempts=2, pause_s=0.01, small_s=0.3)
            with pytest.raises(DeviceError, match="longer than it may") as caught:
                home.pull(Pulling(patience=patience))
            assert (caught.value.code, caught.value.exit_code) == ("NETWORK", 75)
        finally:
            ended.set()
            server.shutdown()
            thread.join()
    with field_.store.locked():
        assert field_.state.last_pull["code"] == "NETWORK"
