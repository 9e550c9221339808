"""The consortium's CA and the coordinator's certificate: made once, kept, and renewed in time."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..core.errors import InvalidInput
from ..core.files import write_atomic
from ..core.public_keys import require_private

CA_DAYS = 825
SERVER_DAYS = 397
RENEW_DAYS = 30
_SKEW = timedelta(hours=1)
"""A certificate begins this much before it was made: a site's clock may be a little late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Where certificates and keys are, and in words what was made, kept or renewed."""

    ca: bytes
    ca_path: Path
    server_path: Path
    server_key: Path
    done: tuple[str, ...]


def ensure_certificates(
    folder: Path, *, consortium: str, host: str, now: datetime | None = None
) -> Certificates:
    """Make CA and server certificate in ``folder`` (``keys/``, ``certs/``), or keep what is there.

    The server certificate names ``host``, ``localhost`` and 127.0.0.1. It is made anew when it
    ends within 30 days or names another host; the CA's when it ends within 30 days, with the
    same key. Keys are never changed. ``now`` is the time of making, UTC. Raises ``InvalidInput``
    for a file that is no key or certificate, ``Refused`` for a key that others can read.
    """
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    done: list[str] = []
    ca_key = _key(folder / "keys" / "ca.key", done)
    server_key = _key(folder / "keys" / "server.key", done)
    ca_path, server_path = folder / "certs" / "ca.crt", folder / "certs" / "server.pem"
    ca = _read(ca_path)
    why = "made" if ca is None else _stale_ca(ca, ca_key, moment)
    if ca is None or why:
        ca = _authority(ca_key, consortium, moment)
        write_atomic(ca_path, ca.public_bytes(serialization.Encoding.PEM))
    done.append(f"certs/ca.crt: {why or 'kept'}, valid until {_day(ca)}")
    server = _read(server_path)
    why = "made" if server is None else _stale_server(server, ca, server_key, host, moment)
    if server is None or why:
        server = _server(server_key, ca, ca_key, host=host, now=moment)
        write_atomic(server_path, server.public_bytes(serialization.Encoding.PEM))
    done.append(f"certs/server.pem: {why or 'kept'}, valid until {_day(server)}")
    return Certificates(
        ca=ca_path.read_bytes(),
        ca_path=ca_path,
        server_path=server_path,
        server_key=folder / "keys" / "server.key",
        done=tuple(done),
    )


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and addresses that a certificate is for, in its order."""
    with suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return tuple(str(name.value) for name in found.value)
    return ()


def _authority(key: ec.EllipticCurvePrivateKey, consortium: str, now: datetime) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, "Collegium consortium CA"),
        ]
    )
    builder = _begun(name, name, key.public_key(), now, now + timedelta(days=CA_DAYS))
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, hashes.SHA384())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    *,
    host: str,
    now: datetime,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    end = min(now + timedelta(days=SERVER_DAYS), ca.not_valid_after_utc)
    return (
        _begun(name, ca.subject, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA384())
    )


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(host: str) -> Iterable[x509.GeneralName]:
    for name in dict.fromkeys([host, "localhost", "127.0.0.1"]):
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            yield x509.DNSName(name)


def _stale_ca(ca: x509.Certificate, key: ec.EllipticCurvePrivateKey, now: datetime) -> str:
    if ca.public_key() != key.public_key():
        raise InvalidInput(
            "certs/ca.crt is not of keys/ca.key",
            why="one of the two was replaced",
            cure="put the right pair back from a backup, or provision into a new folder",
        )
    return "renewed with the same key" if _ends_soon(ca, now) else ""


def _stale_server(
    server: x509.Certificate,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    host: str,
    now: datetime,
) -> str:
    """Return why a server certificate must be made anew, or '' while it serves."""
    wanted = {str(name.value) for name in _names(host)}
    if set(hosts_of(server)) != wanted:
        return f"made again for {host}"
    if server.public_key() != key.public_key() or not _issued(server, ca):
        return "made again for the key and CA that are here"
    return "renewed with the same key" if _ends_soon(server, now) else ""


def _issued(server: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        server.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _ends_soon(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc - now < timedelta(days=RENEW_DAYS)


def _day(certificate: x509.Certificate) -> str:
    return certificate.not_valid_after_utc.date().isoformat()


def _key(path: Path, done: list[str]) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_atomic(path, pem, mode=0o600)
        done.append(f"keys/{path.name}: made")
        return key
    require_private(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(
            f"keys/{path.name} is not an unencrypted EC private key in PEM",
            cure="put it back from a backup, or provision into a new folder",
        )
    done.append(f"keys/{path.name}: kept")
    return key


def _read(path: Path) -> x509.Certificate | None:
    if not path.exists():
        return None
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise InvalidInput(
            f"certs/{path.name} is not a certificate in PEM",
            cure="remove it: provision makes it anew with the same key",
        ) from None
