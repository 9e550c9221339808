"""Bounded reads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from .errors import DeviceError

PART_BYTES = 1 << 16


def read_stream(stream: BinaryIO, limit: int, expected: int = 0) -> bytes:
    """Return the bytes of a stream up to its end, or ``limit`` + 1 of them when it has more.

    Memory is taken for what is there, at first for the ``expected`` bytes, never for the limit.
    """
    size = min(expected, limit) + 1
    raw = stream.read(size)
    if len(raw) < size:
        return raw
    parts = [raw]
    while size <= limit and (part := stream.read(min(PART_BYTES, limit + 1 - size))):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def read_limited(path: Path, limit: int) -> bytes:
    """Return a file's bytes, at most ``limit``."""
    try:
        with path.open("rb") as stream:
            raw = read_stream(stream, limit, os.fstat(stream.fileno()).st_size)
    except (FileNotFoundError, NotADirectoryError):
        raise DeviceError("MISSING", f"there is no file {path.name}", 66) from None
    except OSError as error:
        raise DeviceError("MISSING", f"{path.name} cannot be read: {error.strerror}", 66) from None
    if len(raw) > limit:
        raise DeviceError("TOO LARGE", f"{path.name} has more than {limit} bytes")
    return raw


def digest_of_file(path: Path, limit: int) -> str:
    """Return a file's SHA-256 in hexadecimal, "" when it has more than ``limit`` bytes."""
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while part := stream.read(PART_BYTES):
                found.update(part)
                size += len(part)
                if size > limit:
                    return ""
    except OSError as error:
        raise DeviceError("MISSING", f"{path.name} cannot be read: {error.strerror}", 66) from None
    return found.hexdigest()
