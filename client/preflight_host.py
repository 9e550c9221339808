"""Checks of the machine: keys, disk, sockets, versions. Imports neither torch nor Flower."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..core.enroll import SIGNING_KEY, SUPERNODE_KEY
from ..core.errors import CollegiumError
from ..core.public_keys import require_private
from ..core.site_file import SiteFile
from .control import SOCKET
from .network import network_folder, relay_socket, supernode_key
from .preflight import Finding, Part, made, ok, problem, unknown, warning
from .sockets import check_socket_path
from .words import anchor_of

_LEAST_BYTES = 100_000_000
_SCARCE_BYTES = 2_000_000_000
_PACKAGES = ("collegium", "flwr", "torch", "grpcio", "cryptography")


def host_checks(file: SiteFile, *, part: Part) -> Iterator[Finding]:
    """Yield how this machine stands for that part of a site."""
    yield from _platform()
    yield from made("versions", _versions)
    yield from made("keys", lambda: _keys(file, part))
    for name, folder in _folders(file, part):
        yield from made(name, lambda name=name, folder=folder: _folder(name, folder))
    yield from made("socket paths", lambda: _sockets(file, part))


def _platform() -> Iterator[Finding]:
    if sys.platform == "linux":
        yield ok("platform", f"Linux {platform.release()}")
    else:
        yield problem("platform", f"{sys.platform} cannot run a site", "use Linux")


def _versions() -> Iterator[Finding]:
    found: list[str] = [f"Python {platform.python_version()}"]
    missing: list[str] = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield problem("versions", f"not installed: {', '.join(missing)}", "install collegium again")
    else:
        yield ok("versions", ", ".join(found))


def _keys(file: SiteFile, part: Part) -> Iterator[Finding]:
    own = (file.keys_path / SIGNING_KEY, file.keys_path / SUPERNODE_KEY)
    for path in (supernode_key(file),) if part == "network" else own:
        try:
            require_private(path)
            path.open("rb").close()
        except PermissionError:
            yield problem("keys", f"{path} belongs to another user", "chown it to this user")
        except CollegiumError as error:
            yield problem("keys", error.what, error.cure or "`collegium site enroll` makes it")
        else:
            yield ok("keys", f"{path} is this user's alone")


def _folders(file: SiteFile, part: Part) -> Iterator[tuple[str, Path]]:
    if part != "records":
        yield "disk: network part", network_folder(file)
    if part != "network":
        yield "disk: state", file.state_path
        yield "disk: ledger", file.ledger_path.parent
        yield "disk: anchor", anchor_of(file).parent


def _folder(name: str, folder: Path) -> Iterator[Finding]:
    """Write, sync and remove a small file: a disk that does not sync loses ledger entries."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".preflight-") as probe:
            probe.write(b"collegium")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        yield problem(name, f"cannot write and sync in {folder}: {error.strerror}", "mend the disk")
        return
    free = shutil.disk_usage(folder).free
    text = f"{folder} syncs, {free / 1e9:.1f} GB free"
    if free < _LEAST_BYTES:
        yield problem(name, text, "make room: a full disk stops the site between two rounds")
    elif free < _SCARCE_BYTES:
        yield warning(name, text, "make room before a long run")
    else:
        yield ok(name, text)


def _sockets(file: SiteFile, part: Part) -> Iterator[Finding]:
    paths: list[Path] = [] if part == "network" else [file.state_path / SOCKET]
    paths += [] if part == "both" else [relay_socket(file)]
    for path in paths:
        check_socket_path(path)
        yield ok("socket paths", f"{path} is short enough")
    if not paths:
        yield unknown("socket paths", "none is used", "nothing to do")
