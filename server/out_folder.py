"""What ``--out`` names: a folder that can be made, or a word on why it cannot."""

from __future__ import annotations

import errno
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import InvalidInput, OutputExists

_NO_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.EROFS)


@contextmanager
def nameable(folder: Path) -> Generator[None]:
    """Tell errors of making ``folder``: ``OutputExists`` for a file, ``InvalidInput`` for a name.

    A full disk and missing rights stay what they are: the command line has words for those.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise OutputExists(
            f"{folder} is a file, or lies below one",
            why="the output is a folder",
            cure="name another folder with --out",
        ) from None
    except OSError as error:
        if error.errno not in _NO_NAME:
            raise
        name = str(folder)
        shown = name if len(name) <= 80 else f"{name[:40]}...{name[-20:]}"
        raise InvalidInput(
            f"no folder can be made as {shown}",
            why=f"the file system says: {error.strerror}",
            cure="name another folder with --out",
        ) from None


def require_nameable(folder: Path) -> None:
    """Raise as ``nameable`` would for making ``folder``; nothing is made."""
    absolute = folder.absolute()
    there, is_new = Path(absolute.anchor), False
    with nameable(folder):
        for part in absolute.parts[1:]:
            try:
                mode = (there / part).stat().st_mode
            except FileNotFoundError:
                is_new = True  # what follows is looked up here as well: a name is too long anywhere
                continue
            if is_new:
                continue
            if not stat.S_ISDIR(mode):
                raise NotADirectoryError
            there = there / part
