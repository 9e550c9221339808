"""Checks of the way to the coordinator: certificate, clock, health; one real TLS handshake."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from ..core.forms import split_address
from .preflight import Finding, ok, problem, unknown, warning

if TYPE_CHECKING:
    from .kit import Kit

_TIMEOUT_S = 15.0
"""For the whole exchange: one byte every few seconds must not hold preflight up."""
_SOON_S = 30 * 86_400
_CLOCK_S = 2.0
_AHEAD_S, _BEHIND_S = 5.0, 300.0
"""Flower's SuperNode signs its clock; the coordinator accepts about -5..+305 s of it."""
_EXPIRED, _NOT_YET = 10, 9
_WRONG_HOST = (62, 64)
_STATUS = re.compile(r"[1-5][0-9]{2}")
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came over the encrypted connection; ``clock_s`` is our clock less theirs, or None."""

    certificate: dict[str, Any]
    protocol: str
    status: int
    clock_s: float | None


def link_checks(kit: Kit) -> Iterator[Finding]:
    """Yield how the coordinator answers at the signed roster's address, with the kit's CA alone."""
    yield from check_link(kit.roster.address, kit.ca_certificate)


def check_link(address: str, ca: bytes) -> Iterator[Finding]:
    """Yield findings about certificate, clock and health of HOST:PORT; ``ca`` is PEM."""
    host, port = split_address(address)
    try:
        answer = ask(host, port, ca)
    except ssl.SSLCertVerificationError as error:
        yield _bad_certificate(error, address, host)
        return
    except ssl.SSLError as error:
        yield _no_tls(error, address)
        return
    except socket.gaierror:
        cure = "correct the name service, or agree on another address"
        yield unknown("coordinator", f"the name {host} is not known here", cure)
        return
    except OSError as error:
        yield unknown(
            "coordinator",
            f"{address} does not answer ({error.strerror or type(error).__name__})",
            "is it started, and may this machine connect outwards to it?",
        )
        return
    yield from _certificate(answer)
    yield from _clock(answer)
    if answer.status == 200:
        yield ok("coordinator", f"{address} answers over {answer.protocol}")
    else:
        yield unknown(
            "coordinator", f"its health page answers {answer.status}", "ask the coordinator"
        )


def ask(host: str, port: int, ca: bytes) -> Answer:
    """Connect as the SuperNode does, with this CA alone, for 15 s at most.

    Raises ``ssl.SSLError`` or ``OSError``.
    """
    until = time.monotonic() + _TIMEOUT_S
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
    with (
        _connected(host, port, until) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        before = time.time()
        secure.settimeout(_left(until))
        secure.sendall(
            f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        head = _head(secure, until)
        now = (before + time.time()) / 2
        certificate: Any = secure.getpeercert() or {}
        lines = head.split("\r\n")
        status = lines[0].split(" ")
        return Answer(
            certificate=certificate,
            protocol=secure.version() or "",
            status=int(status[1]) if len(status) > 1 and _STATUS.fullmatch(status[1]) else 0,
            clock_s=_clock_difference(lines[1:], now),
        )


def _connected(host: str, port: int, until: float) -> socket.socket:
    """Return a connection to the first address that answers; raises ``OSError``."""
    failed: OSError = socket.gaierror(f"no address of {host}")
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            connection = socket.create_connection((str(address[0]), port), timeout=_left(until))
        except OSError as error:
            failed = error
        else:
            connection.settimeout(_left(until))
            return connection
    raise failed


def _left(until: float) -> float:
    """Return the seconds that are left; raises ``TimeoutError`` when none are."""
    if (left := until - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _head(secure: ssl.SSLSocket, until: float) -> str:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 65_536:
        secure.settimeout(_left(until))
        if not (data := secure.recv(4096)):
            break
        head += data
    return head.partition(b"\r\n\r\n")[0].decode("latin-1")


def _clock_difference(lines: list[str], now: float) -> float | None:
    """Return our clock less theirs; theirs is cut to whole seconds, so half a one is added."""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "date":
            try:
                return now - (parsedate_to_datetime(value.strip()).timestamp() + 0.5)
            except (ValueError, TypeError, OverflowError):
                return None
    return None


def _certificate(answer: Answer) -> Iterator[Finding]:
    certificate = answer.certificate
    names = ", ".join(str(value) for _, value in certificate.get("subjectAltName", ()))
    until = str(certificate.get("notAfter", ""))
    left = ssl.cert_time_to_seconds(until) - time.time()
    text = f"signed by the kit's CA, for {names}, until {until}"
    if left < _SOON_S:
        yield warning("certificate", text, "ask the coordinator for a new one in time")
    else:
        yield ok("certificate", text)


def _clock(answer: Answer) -> Iterator[Finding]:
    ahead = answer.clock_s
    if ahead is None:
        yield unknown("clock", "the coordinator does not tell its time", "compare it by hand")
        return
    text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
    cure = "set the clock by NTP, here or there"
    if ahead > _AHEAD_S or ahead < -_BEHIND_S:
        yield problem("clock", f"{text}: its SuperNode would be refused", cure)
    elif abs(ahead) > _CLOCK_S:
        yield warning("clock", text, cure)
    else:
        yield ok("clock", "within 2 s of the coordinator's")


def _bad_certificate(error: ssl.SSLCertVerificationError, address: str, host: str) -> Finding:
    if error.verify_code == _EXPIRED:
        return problem(
            "certificate", f"the certificate of {address} has expired", "tell the coordinator"
        )
    if error.verify_code == _NOT_YET:
        return problem(
            "certificate",
            f"the certificate of {address} is not valid yet",
            "check this machine's clock, then tell the coordinator",
        )
    if error.verify_code in _WRONG_HOST:
        return problem(
            "certificate",
            f"the certificate of {address} is for another host",
            f"its names (SAN) must hold {host}: tell the coordinator",
        )
    return problem(
        "certificate",
        f"the certificate of {address} is not signed by the kit's CA",
        "do not connect: compare the CA's fingerprint with the coordinator by telephone",
    )


def _no_tls(error: ssl.SSLError, address: str) -> Finding:
    if error.reason in _PLAIN:
        return problem(
            "certificate",
            f"{address} answers without encryption",
            "do not connect: the coordinator must serve TLS",
        )
    return problem(
        "certificate",
        f"no TLS connection to {address} ({error.reason})",
        "both sides must offer TLS 1.2 or newer",
    )
