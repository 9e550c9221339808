"""How an error reaches the user: one message on stderr, one exit code, never a traceback."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import click

from ..core.errors import CollegiumError, Interrupted, InvalidInput, MissingInput, UsageError

logger = logging.getLogger(__name__)


def report(error: BaseException, *, as_json: bool) -> int:
    """Print an error on stderr and return its exit code (the list in ``core/errors.py``)."""
    shown = _translate(error)
    if as_json:
        click.echo(json.dumps({"error": describe(shown)}, ensure_ascii=False), err=True)
    elif sys.stderr.isatty():
        _pretty(shown)
    else:
        click.echo(f"Error: {shown.message()}", err=True)
    return shown.exit_code


def describe(error: CollegiumError) -> dict[str, Any]:
    """Return an error as plain values: kind, exit code, message, and each problem's parts."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return {
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "message": error.message(),
        "problems": [
            {"where": p.where, "what": p.what, "why": p.why, "cure": p.cure} for p in problems
        ],
    }


def _translate(error: BaseException) -> CollegiumError:
    if isinstance(error, CollegiumError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        what, _, guess = error.format_message().partition(" Did you mean ")
        cures = [f"did you mean {guess.rstrip('?')}?"] if guess else []
        cures += [f"`{context.command_path} --help` shows how"] if context else []
        return UsageError(what, cure=" ".join(cures))
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Interrupted("Interrupted", cure="a run continues with --resume and the same --out")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Interrupted(
            "The disk is full", cure="make room; a run continues with --resume and the same --out"
        )
    if isinstance(error, PermissionError):
        return MissingInput(f"{error.filename} cannot be opened", why=f"{error.strerror}")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return MissingInput("a path is longer than this system takes", why=f"{error.strerror}")
    log = _keep_traceback(error)
    return CollegiumError(
        f"Internal error ({type(error).__name__})",
        why=f"This is a bug; its traceback is in {log}",
        cure="please report it; read that file before you send it: at a site a traceback may name "
        "what was in a record",
    )


def _keep_traceback(error: BaseException) -> Path:
    """Write the traceback where the run logs, or else into a new private file; return where."""
    for handler in logging.getLogger("collegium").handlers:
        if isinstance(handler, logging.FileHandler):
            logger.error("internal error", exc_info=error)
            return Path(handler.baseFilename)
    handle, name = tempfile.mkstemp(prefix="collegium-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.writelines(traceback.format_exception(error))
    return Path(name)


def _pretty(error: CollegiumError) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    unicode = console.encoding.startswith("utf")
    cross, arrow = ("✗", "→") if unicode else ("x", "->")
    head = error.message() if not (problems := getattr(error, "problems", ())) else ""
    console.print(Text(f"{cross} ", style="bold red"), end="")
    title = Text(head or error.message().partition("\n")[0], style="bold" * (not head))
    console.print(title, soft_wrap=True)  # a command to type must not break in two
    for problem in problems:
        line = Text.assemble((problem.where, "bold cyan"), f"  {problem.what}")
        console.print(Padding(line, (1, 0, 0, 2)))
        console.print(Padding(Text(f"{problem.why}.", style="dim"), (0, 0, 0, 4)))
        console.print(Padding(Text(f"{arrow} {problem.cure}"), (0, 0, 0, 4)))
