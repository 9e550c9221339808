"""Writes that survive a power cut, one lock, and what a disk's failure means."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .errors import DeviceError

FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
HELD = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK})
"""What the system answers where another process holds the lock."""


def lock_now(descriptor: int) -> bool:
    """Lock an open file without waiting; return whether no other process holds it."""
    try:
        if os.name == "nt":
            import msvcrt

            getattr(msvcrt, "locking")(descriptor, getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        why = f"the home cannot be locked: {error.strerror}; keep it on a disk of this machine"
        raise DeviceError("DISK", why, 66) from None
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, sync, replace, sync the folder: the old bytes or the new ones, never a mix."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise disk_error(error) from None


def sync_directory(folder: Path) -> None:
    """Make a rename in ``folder`` durable; Windows opens no folders and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: OSError) -> DeviceError:
    """Return what a failure of this device's disk means to its operator."""
    if error.errno in FULL:
        why = "the disk is full; what runs is untouched: make room, then pull again"
        return DeviceError("FULL DISK", why, 75)
    return DeviceError("DISK", f"the home cannot be written: {error.strerror}", 66)
