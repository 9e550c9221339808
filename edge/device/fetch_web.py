"""Files of a publication over HTTPS: resumed after a break, retried, no faster than it is safe."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DeviceError
from .fetch import CHUNK_BYTES, Sink, Tell, Wanted

AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 after which asking again may help."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait and how often to try again.

    ``attempts`` without one new byte end the pull, as do ``most`` attempts in all; a server
    that sends less than ``slowest_bytes_s`` for ``slow_s`` seconds counts as broken.
    """

    timeout_s: float = 30.0
    attempts: int = 4
    most: int = 100
    pause_s: float = 0.5
    slow_s: float = 60.0
    slowest_bytes_s: float = 100.0


class BrokenOff(Exception):
    """The network did not deliver; trying again may help."""


class PastTheEnd(BrokenOff):
    """HTTP 416: there is nothing at the place from which to go on."""


class WebSource:
    """A publication on a web server; without TLS only on this machine, or where it is allowed."""

    def __init__(
        self,
        url: str,
        *,
        allow_http: bool = False,
        ca: str = "",
        patience: Patience | None = None,
    ) -> None:
        check_address(url, allow_http=allow_http)
        self._url, self._patience = url.rstrip("/"), patience or Patience()
        self._opener = _opener(url, allow_http, ca)

    def read(self, place: str, limit: int) -> bytes:
        """Return a small file's bytes, at most ``limit``."""

        def once() -> bytes:
            with self._open(place, 0) as answer:
                told = _length(answer)
                raw: bytes = answer.read(limit + 1)
            if len(raw) > limit:
                raise DeviceError("TOO LARGE", f"{place} has more than {limit} bytes")
            if told is not None and len(raw) < told:
                raise BrokenOff(f"{len(raw)} of {told} bytes came")
            return raw

        return self._patiently(place, once, lambda: 0)

    def fetch(self, wanted: Wanted, target: Path, tell: Tell) -> None:
        """Complete ``target`` with Range requests; a server that knows none begins anew."""

        def length() -> int:
            return target.stat().st_size if target.exists() else 0

        def once() -> None:
            if wanted.size and length() == wanted.size:  # it broke off after the last byte
                return
            try:
                self._append(wanted, target, length(), tell)
            except PastTheEnd:  # what is here is longer than the server's file: begin anew
                target.unlink(missing_ok=True)
                raise

        self._patiently(wanted.name, once, length)

    def _append(self, wanted: Wanted, target: Path, have: int, tell: Tell) -> None:
        with self._open(wanted.place, have) as answer:
            start = _starts_at(answer) if have else 0
            if start not in (0, have):
                raise PastTheEnd("the server sent another part than the one asked for")
            told = _length(answer)
            expected = None if told is None else start + told
            if expected is not None and expected > wanted.limit:
                raise DeviceError("TOO LARGE", f"{wanted.name} has more bytes than were signed")
            with Sink(wanted, target, start, tell) as sink:
                self._copy(answer, sink)
        least = expected if wanted.size is None else wanted.size
        if least is not None and sink.total < least:
            raise BrokenOff(f"{sink.total} of {least} bytes came")

    def _copy(self, answer: Any, sink: Sink) -> None:
        begin, first = time.monotonic(), sink.total
        while chunk := answer.read1(CHUNK_BYTES):
            sink.write(chunk)
            spent = time.monotonic() - begin
            rate = (sink.total - first) / max(spent, 1e-9)
            if spent > self._patience.slow_s and rate < self._patience.slowest_bytes_s:
                raise BrokenOff("the server hardly sends anything")

    def _open(self, place: str, have: int) -> Any:
        import urllib.request

        headers = {"Accept-Encoding": "identity", "User-Agent": "collegium-device"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(f"{self._url}/{place}", headers=headers)
        return self._opener.open(request, timeout=self._patience.timeout_s)

    def _patiently(self, name: str, once: Callable[[], Any], length: Callable[[], int]) -> Any:
        """Run ``once`` until it succeeds; back off while not one new byte comes."""
        idle, words, patience = 0, "", self._patience
        for _ in range(patience.most):
            before = length()
            try:
                with _translated(name):
                    return once()
            except BrokenOff as error:
                words = str(error)
            idle = 0 if length() > before else idle + 1
            if idle >= patience.attempts:
                break
            time.sleep(patience.pause_s * 2**idle)
        why = f"{name} did not arrive ({words}); what came is kept: pull again"
        raise DeviceError("NETWORK", why, 75)


@contextmanager
def _translated(name: str) -> Generator[None]:
    """Turn what the network raises into what helps: try again, or a named refusal."""
    import http.client
    import ssl
    import urllib.error

    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise PastTheEnd("HTTP 416") from None
        if error.code in AGAIN or error.code >= 500:
            raise BrokenOff(f"HTTP {error.code}") from None
        why = f"the server does not give {name}: HTTP {error.code}"
        raise DeviceError("MISSING", why, 66) from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"the server's certificate does not hold: {cause.verify_message}"
            raise DeviceError("TLS", why) from None
        text = getattr(cause, "strerror", None) or type(cause).__name__
        raise BrokenOff(str(text)) from None


def _length(answer: Any) -> int | None:
    """Return how many bytes the server says it sends."""
    told = answer.headers.get("Content-Length", "")
    return int(told) if re.fullmatch(r"[0-9]{1,18}", told) else None


def _starts_at(answer: Any) -> int:
    """Return where the sent part begins: 0 when the server sends the whole file."""
    if answer.status != 206:
        return 0
    found = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else -1


def check_address(url: str, *, allow_http: bool, before: str = "") -> None:
    """Refuse an address without TLS (but for this machine), with a password, or of no web server.

    Signatures protect what a bundle says; TLS also hides which bundle a device takes, and
    keeps others from holding back a new one.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, secret = parts.hostname or "", parts.username or parts.password
        plain = parts.scheme == "http" and not before.startswith("https:")
        whole = bool(host) and parts.port != 0
    except ValueError:
        raise DeviceError("BAD ADDRESS", "it cannot be read as a web address", 64) from None
    if secret or parts.query or parts.fragment or not whole or not url.isprintable():
        why = "an address is https://HOST/FOLDER, without password, '?' or '#'"
        raise DeviceError("BAD ADDRESS", why, 64)
    if parts.scheme != "https" and not (plain and (allow_http or host in LOOPBACK)):
        why = (
            f"{host} would be asked without TLS: others could see what this device takes and keep "
            "a new version from it; use https://, or --allow-http where you accept that"
        )
        raise DeviceError("NO TLS", why)


def _opener(url: str, allow_http: bool, ca: str) -> Any:
    """Return what opens addresses: proxies as in the environment, redirects never to less TLS."""
    import ssl
    import urllib.request
    from urllib.parse import urlsplit

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(  # noqa: PLR0917  the library's own signature
            self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Any:
            place = urlsplit(newurl)._replace(query="", fragment="").geturl()
            try:
                check_address(place, allow_http=allow_http, before=req.full_url)
            except DeviceError:
                fp.close()
                raise
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError):
        raise DeviceError("BAD KEY", f"{Path(ca).name} is no readable CA file (PEM)", 65) from None
    handlers: list[Any] = [Redirects(), urllib.request.HTTPSHandler(context=context)]
    if urlsplit(url).hostname in LOOPBACK:  # a proxy has no business with this machine
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)
