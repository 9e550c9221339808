"""Which errors of the world outside a run may be gone when it is tried again."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ..core.errors import CollegiumError, Interrupted

logger = logging.getLogger(__name__)

_UNAUTHORIZED = 401


def is_resumable(error: BaseException) -> bool:
    """Return whether going on may work: a disk or a connection failed, no rule said no.

    A full or failing disk is an ``OSError``, or SQLite's word for it. Of the SuperLink: no
    connection, an error of its own (5xx), or a token that ended with its Flower run (401).
    """
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error or error.response.status_code == _UNAUTHORIZED
    return isinstance(error, OSError | sqlite3.OperationalError | httpx.TransportError)


@contextmanager
def resumable(folder: Path) -> Generator[None]:
    """Turn what may be gone when a run is tried again into ``Interrupted``."""
    try:
        yield
    except CollegiumError:
        raise
    except Exception as error:
        if not is_resumable(error):
            raise
        logger.exception("the run stopped")
        raise Interrupted(
            f"the run in {folder} could not go on",
            why=getattr(error, "strerror", None) or str(error),
            cure="free some space or mend what it names, then --resume",
        ) from error
