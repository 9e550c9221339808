"""A folder appears by one rename; what killed writers left is told from what live ones hold."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.files import sync_folder

ABANDONED_S = 3600.0  # where folders cannot be locked, age tells
_OLD = ".old."


@contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """Yield an empty folder beside ``out``; it is gone at the end unless it was put in place.

    First the leftovers of killed writers go: an older ``out`` that one had set aside is put back.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(out)
    with _held(out.parent, f".{out.name}.new.") as folder:
        yield folder


def put_in_place(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``; what was there stands aside until the new one is in place."""
    if not out.exists():
        folder.rename(out)
        sync_folder(out.parent)
        return
    with _held(out.parent, f".{out.name}{_OLD}") as beside:
        aside = beside / out.name
        out.rename(aside)
        try:
            folder.rename(out)
        except OSError:
            aside.rename(out)
            raise
        finally:
            sync_folder(out.parent)


def clear_leftovers(out: Path) -> None:
    """Remove what killed writers of ``out`` left beside it, after putting back what they moved."""
    for leftover in sorted(out.parent.glob(f".{out.name}.*")):
        kind = leftover.name.removeprefix(f".{out.name}")
        if not kind.startswith((_OLD, ".new.")) or leftover.is_symlink() or not leftover.is_dir():
            continue
        with _lock(leftover, wait=False) as mine:
            if not mine:
                continue
            aside = leftover / out.name
            if kind.startswith(_OLD) and aside.is_dir() and not out.exists():
                aside.rename(out)
                sync_folder(out.parent)
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _held(parent: Path, prefix: str) -> Generator[Path]:
    """Yield a new folder that other writers see is in use; remove it at the end."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with _lock(folder, wait=True):
            if not folder.exists():  # another writer took it for a leftover before it was locked
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _lock(folder: Path, *, wait: bool) -> Generator[bool]:
    """Yield whether this process may have the folder; the kernel frees what a killed one held."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield wait or _is_old(folder)
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        except BlockingIOError:
            mine = False
        except OSError:  # a file system without locks
            mine = wait or _is_old(folder)
        yield mine
    finally:
        os.close(descriptor)


def _is_old(folder: Path) -> bool:
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime > ABANDONED_S
    return False
