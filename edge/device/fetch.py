"""Files of a publication, from a folder: bounded, resumed, and trusted in nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from .disk import disk_error
from .errors import DeviceError

CHUNK_BYTES = 1 << 18
Tell = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes that are here, and the bytes in all when they are signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file by its place in the publication; ``size`` in bytes where it is signed."""

    place: str
    size: int | None
    limit: int

    @property
    def name(self) -> str:
        """The file's own name, for messages."""
        return self.place.rpartition("/")[2]


class Source(Protocol):
    """Where a publication's files come from; nothing that it says is believed."""

    def read(self, place: str, limit: int) -> bytes:
        """Return a small file's bytes; ``DeviceError`` MISSING (66) when there is none."""
        ...

    def fetch(self, wanted: Wanted, target: Path, tell: Tell) -> None:
        """Complete ``target``, which may hold a first part."""
        ...


class FolderSource:
    """A publication in a folder of this machine, a share, or a medium that was carried in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not os.path.isdir(folder):  # noqa: PTH112  no OSError where it may not be looked at
            why = f"there is no folder {folder.name}; is the medium there?"
            raise DeviceError("MISSING", why, 66)

    def has(self, place: str) -> bool:
        """Return whether there is such a file."""
        return os.path.exists(self._folder / place)  # noqa: PTH110  no OSError either

    def read(self, place: str, limit: int) -> bytes:
        """Return a file's bytes, at most ``limit``."""
        name = place.rpartition("/")[2]
        with _plain_file(self._folder / place) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size <= limit:
                try:
                    return stream.read(size)
                except OSError as error:
                    raise _broke_off(name, error) from None
        raise DeviceError("TOO LARGE", f"{name} has more than {limit} bytes")

    def fetch(self, wanted: Wanted, target: Path, tell: Tell) -> None:
        """Copy the file; a first part is written anew, which costs less than checking it."""
        stream = _plain_file(self._folder / wanted.place)
        with stream, Sink(wanted, target, 0, tell) as sink:
            while chunk := _read_chunk(stream.read, wanted.name):
                sink.write(chunk)


class Sink:
    """A file that grows to at most its limit and is on the disk when it is left."""

    def __init__(self, wanted: Wanted, target: Path, start: int, tell: Tell) -> None:
        self._wanted, self._target, self._tell, self.total = wanted, target, tell, start

    def __enter__(self) -> Sink:
        """Open the file: what is there stays when ``start`` is its length, or goes."""
        try:
            self._stream = self._target.open("ab" if self.total else "wb")
        except OSError as error:
            raise disk_error(error) from None
        return self

    def write(self, chunk: bytes) -> None:
        """Add bytes; more than were signed are refused, and nothing of them is kept."""
        if self.total + len(chunk) > self._wanted.limit:
            self._stream.truncate(0)
            raise DeviceError("TOO LARGE", f"{self._wanted.name} has more bytes than were signed")
        try:
            self._stream.write(chunk)
        except OSError as error:
            raise disk_error(error) from None
        self.total += len(chunk)
        self._tell(self._wanted.name, self.total, self._wanted.size)

    def __exit__(self, *_: object) -> None:
        """Bring what was written to the disk, also after an error: the next pull goes on there."""
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise disk_error(error) from None
        finally:
            close_quietly(self._stream.close)


def close_quietly(close: Callable[[], None]) -> None:
    """Close a file whose last bytes a full disk refused: that was reported before."""
    try:
        close()
    except OSError:
        return


def _read_chunk(read: Callable[[int], bytes], name: str) -> bytes:
    try:
        return read(CHUNK_BYTES)
    except OSError as error:
        raise _broke_off(name, error) from None


def _broke_off(name: str, error: OSError) -> DeviceError:
    """Return what it means that a medium was pulled out."""
    return DeviceError("NETWORK", f"{name} broke off: {error.strerror}", 75)


def _plain_file(path: Path) -> BinaryIO:
    """Open a plain file; a pipe or a device on the medium is refused, and not waited for."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise DeviceError("MISSING", f"there is no file {path.name}", 66) from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or "its name"
        raise DeviceError("MISSING", f"{path.name} cannot be read: {words}", 66) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise DeviceError("FILE SET", f"{path.name} is no plain file")
