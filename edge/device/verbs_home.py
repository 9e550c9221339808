"""The verbs of a home: init, pull, rollback, health."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .fetch import Tell
from .health import health_line
from .home import Home, make_home
from .installed import Moved
from .pull import Pulling
from .store import Settings
from .verbs import Outcome, Verb


def _home_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("home", type=Path, metavar="HOME", help="folder of this device")


def _widening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow-simulated", action="store_true",
        help="accept a bundle from a simulation")  # fmt: skip
    parser.add_argument("--allow-expired", action="store_true",
        help="warn of what is expired: for devices without a clock")  # fmt: skip


def _web(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--allow-http", action="store_true",
        help="fetch without TLS: signatures protect what a bundle says, but others see what is "
        "fetched and can keep a new version away")  # fmt: skip
    parser.add_argument("--ca", default="", metavar="FILE",
        help="certificate authority of the server (PEM), when it is a private one")  # fmt: skip


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    _home_argument(parser)
    add = parser.add_argument
    add("--from", dest="url", required=True, metavar="URL",
        help="publication: a web address or a folder; or .../bundle.sig of one bundle")  # fmt: skip
    add("--key", action="append", default=[], required=True, metavar="KEY",
        help="trusted public key: PEM file, or ed25519:BASE64; may be given again")  # fmt: skip
    add("--threshold", type=int, default=1, metavar="K",
        help="how many of the keys must have signed (default 1)")  # fmt: skip
    add("--revoked", action="append", default=[], metavar="KEY",
        help="key whose signature counts no longer, as ed25519:BASE64")  # fmt: skip
    add("--name", default="", help="the publication's name (default: what the first pull finds)")
    _widening(parser)
    _web(parser)


def _init(options: argparse.Namespace) -> Outcome:
    settings = make_home(
        options.home,
        Settings(
            url=options.url,
            keys=tuple(options.key),
            threshold=options.threshold,
            revoked=tuple(options.revoked),
            name=options.name,
            allow_simulated=options.allow_simulated,
            expired="warn" if options.allow_expired else "refuse",
            allow_http=options.allow_http,
            ca=options.ca,
        ),
    )
    lines = (
        f"{options.home}: follows {settings.url}",
        *(f"trusts {key}" for key in settings.keys),
        f"{settings.threshold} of {len(settings.keys)} keys must sign; compare them with those "
        "that the publisher told you",
        f"Next: pull {options.home}",
    )
    answer = {"ok": True, "url": settings.url, "keys": list(settings.keys)}
    return Outcome(answer=answer | {"threshold": settings.threshold}, lines=lines)


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    _home_argument(parser)
    _widening(parser)
    _web(parser)


def _pull(options: argparse.Namespace) -> Outcome:
    pulling = Pulling(
        allow_simulated=options.allow_simulated,
        allow_expired=options.allow_expired,
        allow_http=options.allow_http,
        ca=options.ca,
        tell=_progress(quiet=options.json),
    )
    return _moved(Home(options.home).pull(pulling))


def _rollback_arguments(parser: argparse.ArgumentParser) -> None:
    _home_argument(parser)
    _widening(parser)


def _rollback(options: argparse.Namespace) -> Outcome:
    home = Home(options.home)
    return _moved(
        home.rollback(allow_simulated=options.allow_simulated, allow_expired=options.allow_expired)
    )


def _health(options: argparse.Namespace) -> Outcome:
    home = Home(options.home)
    answer = home.health(
        allow_simulated=options.allow_simulated, allow_expired=options.allow_expired
    )
    code = 0 if answer["ok"] else 66 if answer["version"] is None else 77
    return Outcome(answer=answer, lines=(health_line(answer),), exit_code=code)


def _moved(moved: Moved) -> Outcome:
    current = moved.state.current
    answer: dict[str, Any] = {
        "ok": True,
        "outcome": moved.outcome,
        "name": moved.state.name,
        "before": moved.before,
        "version": current.version if current else None,
        "digest": current.digest if current else None,
        "floor": moved.state.floor,
        "note": moved.words,
    }
    return Outcome(answer=answer, lines=(f"{moved.state.name}: {moved.words}",))


def _progress(*, quiet: bool) -> Tell:
    """Return what shows how far a file is: one line on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        return lambda _name, _done, _size: None

    def tell(name: str, done: int, size: int | None) -> None:
        whole = f" of {size / 1e6:.1f}" if size else ""
        end = "\n" if done == size else ""
        print(f"\r{name}: {done / 1e6:.1f}{whole} MB ", end=end, file=sys.stderr, flush=True)

    return tell


HOME_VERBS: tuple[Verb, ...] = (
    Verb(name="init", about="make a device's home: what it follows and whom it trusts",
         example="home --from https://models.example.org/pilot --key bundle.pub",
         arguments=_init_arguments, run=_init),
    Verb(name="pull", about="fetch, check and switch to the newest version", example="home",
         arguments=_pull_arguments, run=_pull),
    Verb(name="rollback", about="go back to the version before, and never take this one again",
         example="home",
         arguments=_rollback_arguments, run=_rollback),
    Verb(name="health", about="say in one line what runs and whether it may", example="home --json",
         arguments=_rollback_arguments, run=_health),
)  # fmt: skip
