"""What ``--out`` names: a folder that can be made, or a word on why it cannot."""

from __future__ import annotations

import errno
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
