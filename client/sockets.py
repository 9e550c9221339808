"""Paths of Unix sockets: short enough, and never taken from a process that still listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..core.errors import Refused, UsageError

MOST_BYTES = 107
"""Longest path of a Unix socket (sun_path of Linux, less its final zero)."""


def check_socket_path(path: Path) -> None:
    """Raise ``UsageError`` when the system could not bind a socket at this path."""
    length = len(os.fsencode(path))
    if length > MOST_BYTES:
        raise UsageError(
            f"the socket's path has {length} bytes, and {MOST_BYTES} are possible",
            why=f"the system cannot bind {path}",
            cure="use a shorter [federation] state folder in site.toml",
        )


def remove_stale_socket(path: Path) -> None:
    """Remove the socket that a killed process left; raises ``Refused`` when it is in use."""
    if answers(path):
        raise Refused(
            "another process of this site is running",
            why=f"it answers at {path}; two would spend the same budget twice",
            cure="stop it first",
        )
    path.unlink(missing_ok=True)


def answers(path: Path) -> bool:
    """Return whether some process listens at this path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
