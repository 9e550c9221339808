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
    that sends less than ``slowest_bytes_s`` for ``slow_s`` seconds counts as broken. A file, with
    all its attempts, may take ``small_s`` seconds and as long as its bytes take at that rate.
    """

    timeout_s: float = 30.0
    attempts: int = 4
    most: int = 100
    pause_s: float = 0.5
    slow_s: float = 60.0
    slowest_bytes_s: float = 1000.0
    small_s: float = 120.0


class BrokenOff(Exception):
    """The network did not deliver; trying again may help."""


class PastTheEnd(BrokenOff):
    """HTTP 416: there is nothing at the place from which to go on."""


class Due:
    """The moment of ``time.monotonic`` until which whatever is read must have come."""

    at = 0.0

    def check(self) -> None:
        """Raise ``BrokenOff`` once that moment is over."""
        if time.monotonic() > self.at:
            raise BrokenOff("it took longer than it may")


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
        self._due = Due()
        self._opener = _opener(url, allow_http, ca, self._due)

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

        return self._patiently(place, once, lambda: 0, self._patience.small_s)

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

        size, patience = wanted.size or wanted.limit, self._patience
        seconds = patience.small_s + size / patience.slowest_bytes_s
        self._patiently(wanted.name, once, length, seconds)

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

    def _patiently(
        self, name: str, once: Callable[[], Any], length: Callable[[], int], seconds: float
    ) -> Any:
        """Run ``once`` until it succeeds; back off while not one new byte comes."""
        idle, words, patience = 0, "", self._patience
        self._due.at = time.monotonic() + seconds
        for _ in range(patience.most):
            before = length()
            try:
                with _translated(name):
                    return once()
            except BrokenOff as error:
                words = str(error)
            idle = 0 if length() > before else idle + 1
            if idle >= patience.attempts or time.monotonic() > self._due.at:
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
    except http.client.InvalidURL:
        raise DeviceError("BAD REDIRECT", "the server names no address that can be") from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"the server's certificate does not hold: {cause.verify_message}"
            raise DeviceError("TLS", why) from None
        text = getattr(cause, "strerror", None) or type(cause).__name__
        raise BrokenOff(str(text)) from None
    except ValueError:  # urllib on a Location that it cannot read, the resolver on a host
        raise DeviceError("BAD REDIRECT", "the server names no address that can be") from None


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
        whole = _is_host(host) and parts.port != 0
    except ValueError:
        raise DeviceError("BAD ADDRESS", "it cannot be read as a web address", 64) from None
    if secret or parts.query or parts.fragment or not whole:
        why = "an address is https://HOST/FOLDER, without password, '?' or '#'"
        raise DeviceError("BAD ADDRESS", why, 64)
    if not url.isascii() or not url.isprintable() or " " in url:
        why = "an address has ASCII letters alone and no space: a server's is xn--..., and what "
        raise DeviceError("BAD ADDRESS", f"{why}follows is written as %20, %C3%A8, ...", 64)
    if parts.scheme != "https" and not (plain and (allow_http or host in LOOPBACK)):
        why = (
            f"{host} would be asked without TLS: others could see what this device takes and keep "
            "a new version from it; use https://, or --allow-http where you accept that"
        )
        raise DeviceError("NO TLS", why)


def _is_host(host: str) -> bool:
    """Return whether this can be a server's name: labels of 1 to 63 letters, or an IPv6 address."""
    labels = host.removesuffix(".").split(".")
    plain = all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", label) for label in labels)
    return len(host) < 254 and (plain or ":" in host or not host.isascii())


def _opener(url: str, allow_http: bool, ca: str, due: Due) -> Any:
    """Return what opens addresses: proxies as in the environment, redirects never to less TLS."""
    import ssl
    import urllib.request
    from urllib.parse import urlsplit

    class Redirects(urllib.request.HTTPRedirectHandler):
        def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
            try:
                return super().http_error_302(req, fp, code, msg, headers)
            except (DeviceError, ValueError):  # urllib itself reads the address first
                fp.close()
                raise

        http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

        def redirect_request(  # noqa: PLR0917  the library's own signature
            self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Any:
            place = urlsplit(newurl)._replace(query="", fragment="").geturl()
            try:
                check_address(place, allow_http=allow_http, before=req.full_url)
            except DeviceError as error:
                if error.exit_code == 64:  # the server's mistake, not one of who calls
                    raise DeviceError("BAD REDIRECT", error.reason) from None
                raise
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError):
        raise DeviceError("BAD KEY", f"{Path(ca).name} is no readable CA file (PEM)", 65) from None
    handlers: list[Any] = [Redirects(), *_timed_handlers(context, due)]
    if urlsplit(url).hostname in LOOPBACK:  # a proxy has no business with this machine
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _timed_handlers(context: Any, due: Due) -> list[Any]:
    """Return handlers whose every read looks at ``due``: a header that drips is late too."""
    import http.client
    import io
    import urllib.request

    class InTime(io.RawIOBase):
        def __init__(self, raw: Any) -> None:
            self._raw = raw

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int | None:
            due.check()
            found: int | None = self._raw.readinto(buffer)
            return found

        def close(self) -> None:
            self._raw.close()
            super().close()

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **words: Any) -> None:
            super().__init__(sock, *args, **words)
            self.fp.close()
            self.fp = io.BufferedReader(InTime(sock.makefile("rb", buffering=0)))

    class Plain(http.client.HTTPConnection):
        response_class = Answer

    class Secure(http.client.HTTPSConnection):
        response_class = Answer

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            return self.do_open(Secure, req, context=context)

    return [PlainHandler(), SecureHandler(context=context)]
