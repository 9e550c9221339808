"""The CA and the coordinator's certificate: right for TLS, kept, and renewed in time."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from collegium.core.errors import InvalidInput, Refused
from collegium.server.certificates import Certificates, ensure_certificates, hosts_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOST = "fl.example.org"


def made(folder: Path, *, days: float = 0, host: str = HOST) -> Certificates:
    return ensure_certificates(
        folder, consortium="tests", host=host, now=NOW + timedelta(days=days)
    )


def server_of(found: Certificates) -> x509.Certificate:
    return x509.load_pem_x509_certificate(found.server_path.read_bytes())


def test_what_the_certificates_say(tmp_path: Path) -> None:
    found = made(tmp_path)
    ca, server = x509.load_pem_x509_certificate(found.ca), server_of(found)
    assert ca.not_valid_after_utc - NOW == timedelta(days=825)
    assert server.not_valid_after_utc - NOW == timedelta(days=397)
    assert hosts_of(server) == (HOST, "localhost", "127.0.0.1")
    for one in (ca, server):
        assert isinstance(key := one.public_key(), ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP384R1)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    server.verify_directly_issued_by(ca)
    keys = list((tmp_path / "keys").iterdir())
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600} and len(keys) == 2


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", ("127.0.0.1", "localhost")),
        ("localhost", ("localhost", "127.0.0.1")),
        ("10.0.0.7", ("10.0.0.7", "localhost", "127.0.0.1")),
        ("2001:db8::1", ("2001:db8::1", "localhost", "127.0.0.1")),
    ],
)
def test_names_of_other_hosts(tmp_path: Path, host: str, names: tuple[str, ...]) -> None:
    server = server_of(made(tmp_path, host=host))
    assert hosts_of(server) == names
    alternative = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert len(alternative.get_values_for_type(x509.IPAddress)) == sum(
        name[0].isdigit() for name in names
    )


def test_a_second_time_keeps_everything(tmp_path: Path) -> None:
    before = made(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    after = made(tmp_path, days=300)
    assert {path: path.read_bytes() for path in files} == files and len(files) == 4
    assert after.ca == before.ca and all("kept" in line for line in after.done)


def test_renewal_keeps_every_key(tmp_path: Path) -> None:
    """At day 368 the server certificate has 29 days left, at day 800 the CA has 25."""
    first = made(tmp_path)
    old = server_of(first)
    second = made(tmp_path, days=368)
    new = server_of(second)
    assert second.ca == first.ca
    assert new.public_key() == old.public_key() and new.serial_number != old.serial_number
    third = made(tmp_path, days=800)
    ca = x509.load_pem_x509_certificate(third.ca)
    assert third.ca != first.ca
    assert ca.public_key() == x509.load_pem_x509_certificate(first.ca).public_key()
    server_of(third).verify_directly_issued_by(ca)


def test_a_server_certificate_never_outlives_its_authority(tmp_path: Path) -> None:
    made(tmp_path)
    found = made(tmp_path, days=600)  # the server's own 397 days would end after the CA's 825
    assert server_of(found).not_valid_after_utc == NOW + timedelta(days=825)


def test_another_host_gets_another_certificate(tmp_path: Path) -> None:
    first = made(tmp_path)
    second = made(tmp_path, host="other.example.org")
    assert hosts_of(server_of(second))[0] == "other.example.org" and second.ca == first.ca


def test_a_replaced_ca_key_is_told(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "keys" / "server.key").replace(tmp_path / "keys" / "ca.key")
    with pytest.raises(InvalidInput, match=r"not of keys/ca\.key"):
        made(tmp_path)


def test_broken_and_open_files_are_told(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "certs" / "server.pem").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match=r"server\.pem"):
        made(tmp_path)
    (tmp_path / "keys" / "ca.key").chmod(0o644)
    with pytest.raises(Refused, match="0644"):
        made(tmp_path)
    (tmp_path / "keys" / "ca.key").chmod(0o600)
    (tmp_path / "keys" / "ca.key").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match=r"ca\.key"):
        made(tmp_path)


def handshake(server: Certificates, ca: Path, *, host: str) -> str:
    """Return '' once a client that trusts ``ca`` alone has connected to ``host``, or its error."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.server_path, server.server_key)
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            with context.wrap_socket(here, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            here.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with client.wrap_socket(there, server_hostname=host) as connection:
            connection.send(b".")
    except ssl.SSLError as error:
        return str(error)
    finally:
        there.close()
        thread.join()
    return ""


def test_tls_holds_for_the_names_and_for_no_other(tmp_path: Path) -> None:
    """A real handshake, strict X.509: the wall clock must lie in the certificate's time."""
    now = datetime.now(UTC)
    good = ensure_certificates(tmp_path / "a", consortium="tests", host=HOST, now=now)
    for host in (HOST, "localhost", "127.0.0.1"):
        assert handshake(good, good.ca_path, host=host) == ""
    assert "mismatch" in handshake(good, good.ca_path, host="evil.example.org")
    other = ensure_certificates(tmp_path / "b", consortium="tests", host=HOST, now=now)
    assert "verify failed" in handshake(other, good.ca_path, host=HOST)
    past = now - timedelta(days=500)
    old = ensure_certificates(tmp_path / "c", consortium="tests", host=HOST, now=past)
    assert "expired" in handshake(old, old.ca_path, host=HOST)
