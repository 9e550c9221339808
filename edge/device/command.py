"""The device's command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from .disk import FULL
from .errors import DeviceError
from .inputs import STDIN
from .verbs import Outcome, Verb, shown
from .verbs_bundle import BUNDLE_VERBS
from .verbs_home import HOME_VERBS

VERBS: tuple[Verb, ...] = (*BUNDLE_VERBS, *HOME_VERBS)
"""The whole menu, in the order of ``--help``."""
LONGEST = 80
"""Letters of a file's name that a refusal repeats."""


class _Parser(argparse.ArgumentParser):
    """Usage errors end with 64, as everywhere in Collegium."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Verify a signed bundle, predict with it.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        command = verbs.add_parser(
            verb.name,
            help=verb.about,
            description=verb.about,
            epilog=f"Example:\n  {prog} {verb.name} {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.arguments(command)
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        command.set_defaults(run=verb.run)
    return parser


def main(arguments: Sequence[str] | None = None, *, prog: str = "device.py") -> int:
    """Run one verb and return its exit code; ``prog`` is the name in usage lines."""
    options = _options(_parser(prog), arguments)
    try:
        outcome: Outcome = options.run(options)
        _tell(json.dumps(outcome.answer) if options.json else _lines(outcome.lines))
    except (DeviceError, KeyboardInterrupt, OSError, MemoryError, UnicodeError) as error:
        return _refuse(_named(error), as_json=options.json)
    return outcome.exit_code


def _options(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> Any:
    """Return the parsed words; inputs may also stand behind flags, which argparse leaves over."""
    options, left = parser.parse_known_args(arguments)
    if not hasattr(options, "inputs"):
        return options if not left else parser.error(f"unrecognized arguments: {' '.join(left)}")
    while left:
        word = left.pop(0)
        if word == "--":
            options.inputs += left
            break
        if word.startswith("-") and word != STDIN:
            parser.error(f"unrecognized arguments: {word}")
        options.inputs.append(word)
    return options


def _named(error: BaseException) -> DeviceError:
    """Return the named refusal for what no verb foresaw: a traceback helps nobody at a device."""
    if isinstance(error, DeviceError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return DeviceError("INTERRUPTED", "stopped; run it again", 75)
    if isinstance(error, MemoryError):
        why = "this device has too little memory for it; give smaller or fewer records at a time"
        return DeviceError("MEMORY", why, 75)
    if isinstance(error, OSError):
        name = Path(str(error.filename)).name[:LONGEST] + ": " if error.filename else ""
        why = f"{name}{error.strerror or type(error).__name__}"
        return DeviceError("FULL DISK" if error.errno in FULL else "UNREADABLE", why,
                           75 if error.errno in FULL else 66)  # fmt: skip
    return DeviceError("BAD INPUT", "a name or a text is not Unicode", 65)


def _lines(lines: Sequence[str]) -> str:
    """Return lines for people; tabs stand between the fields of one."""
    return "\n".join("\t".join(map(shown, line.split("\t"))) for line in lines)


def _tell(text: str) -> None:
    """Print an answer; a reader that has read enough (`| head`) is no failure."""
    try:
        _say(text, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_output()


def _say(text: str, stream: TextIO) -> None:
    """Print what a terminal may not know to spell as its escape."""
    known = stream.encoding or "utf-8"
    print(text.encode(known, "backslashreplace").decode(known), file=stream)


def _refuse(error: DeviceError, *, as_json: bool) -> int:
    """Tell the refusal and return its exit code, also where the output takes nothing any more."""
    try:
        if as_json:
            answer = {"ok": False, "code": error.code, "reason": error.reason}
            _say(json.dumps(answer), sys.stdout)
            sys.stdout.flush()
        else:
            words = f"refused: {error}" if error.exit_code == 77 else str(error)
            _say(shown(words), sys.stderr)
    except OSError:
        pass
    _let_go_of_output()
    return error.exit_code


def _let_go_of_output() -> None:
    """Keep Python from failing once more, at its end, on output that nobody takes."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
