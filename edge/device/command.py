"""The device's command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from .errors import DeviceError
from .verbs import Outcome, Verb
from .verbs_bundle import BUNDLE_VERBS
from .verbs_home import HOME_VERBS

VERBS: tuple[Verb, ...] = (*BUNDLE_VERBS, *HOME_VERBS)
"""The whole menu, in the order of ``--help``."""


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
    options = _parser(prog).parse_args(arguments)
    try:
        outcome: Outcome = options.run(options)
    except DeviceError as error:
        _refuse(error, as_json=options.json)
        return error.exit_code
    except KeyboardInterrupt:
        error = DeviceError("INTERRUPTED", "stopped; run it again", 75)
        _refuse(error, as_json=options.json)
        return error.exit_code
    print(json.dumps(outcome.answer) if options.json else "\n".join(outcome.lines))
    return outcome.exit_code


def _refuse(error: DeviceError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ok": False, "code": error.code, "reason": error.reason}))
    else:
        print(f"refused: {error}" if error.exit_code == 77 else str(error), file=sys.stderr)
