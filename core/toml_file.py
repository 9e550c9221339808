"""Open a TOML file that a person wrote, with a message for each way in which that can fail."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from .errors import InvalidInput, MissingInput, Problem

MAX_BYTES = 4 * 1024 * 1024
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_toml(path: Path, error: type[InvalidInput], *, example: str) -> dict[str, Any]:
    """Return the tables of a TOML file.

    ``example`` is the file name that a user would expect here. Raises ``MissingInput`` when there
    is no readable file and ``error`` (65) when it is a folder, too large, not UTF-8 or not TOML.
    """
    data = _bytes(path, error, example)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise _broken(
            path,
            error,
            f"line {line}",
            f"byte {data[failure.start]:#04x} is not UTF-8",
            "save it as UTF-8, without the encoding of an old editor",
        ) from None
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as failure:
        what, place = _explain(str(failure), text)
        cure = "correct that place: texts stand in quotes, each key once, lists in [ ]"
        raise _broken(path, error, place, what, cure) from None
    except (RecursionError, ValueError):
        what = "is nested too deep or holds a number too long to read"
        raise _broken(path, error, "file", what, "remove that value") from None


def _bytes(path: Path, error: type[InvalidInput], example: str) -> bytes:
    if path.is_dir():
        cure = f"name the file in it, such as {path / example}"
        raise _broken(path, error, "file", "is a folder, not a file", cure)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingInput(
            f"There is no file {path}", cure="`collegium init DIR` writes one to start from"
        ) from None
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or str(failure)
        raise MissingInput(f"{path} cannot be read", why=reason, cure="check its name") from None
    if len(data) > MAX_BYTES:
        what = f"is larger than {MAX_BYTES // 1024**2} MiB"
        raise _broken(path, error, "file", what, "check that this is the file you meant")
    return data


def _explain(message: str, text: str) -> tuple[str, str]:
    """Split the parser's message into what is wrong and where."""
    found = _PLACE.search(message)
    what = _PLACE.sub("", message) or message
    if found is None:
        return what, "file"
    if found[1] is None:
        return what, f"line {text.count(chr(10)) + 1} (end of file)"
    return what, f"line {found[1]}, column {found[2]}"


def _broken(path: Path, error: type[InvalidInput], where: str, what: str, cure: str) -> Exception:
    why = "It must be a TOML file"
    return error(str(path), [Problem(where=where, what=what, why=why, cure=cure)])
