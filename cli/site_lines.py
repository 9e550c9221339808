"""What a site's verbs share: its file, Linux alone, and log lines that hold no value."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import NotAvailable

if TYPE_CHECKING:
    from ..core.site_file import SiteFile

PATH = click.argument("path", metavar="SITE.toml", type=click.Path(path_type=Path))


def load_site(path: Path) -> SiteFile:
    """Return the checked site file; raises ``NotAvailable`` where no site can run."""
    from ..core.site_file import SiteFile

    if sys.platform != "linux":
        raise NotAvailable(
            "a site runs on Linux",
            why="it relies on Unix sockets, process groups and file modes",
            cure="`collegium simulate` runs a plan on this machine",
        )
    return SiteFile.load(path)


@contextmanager
def site_log(folder: Path, *, as_json: bool) -> Generator[None]:
    """Log to ``folder/log.jsonl``, for this user alone, and one short line each on stdout.

    A traceback may hold a record: it stands in the file and never in the lines, which a system's
    journal keeps for others to read.
    """
    from ..core.logs import logging_to

    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    log = folder / "log.jsonl"
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    log.chmod(0o600)
    logger = logging.getLogger(f"{__package__}".partition(".")[0])
    handler = _Lines(as_json=as_json)
    with logging_to(folder):
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__(logging.INFO)
        self._json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        from ..server.words import clean

        level, text = record.levelname.lower(), clean(record.getMessage())
        if self._json:
            line = {"at": round(record.created, 3), "level": level, "message": text}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            click.echo(text if level == "info" else f"{level}: {text}")
