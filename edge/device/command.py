"""The device's command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .envelope import load_key
from .errors import DeviceError
from .inputs import read_input
from .names import SIMULATED
from .predicting import predict
from .verify import verify_bundle


class _Parser(argparse.ArgumentParser):
    """Usage errors end with 64, as everywhere in Collegium."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description="Verify a signed bundle, predict with it.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, help_text in (("verify", "check a bundle"), ("predict", "verify, then predict")):
        command = verbs.add_parser(verb, help=help_text)
        command.add_argument("bundle", type=Path, metavar="BUNDLE")
        if verb == "predict":
            command.add_argument("input", type=Path, metavar="INPUT")
        command.add_argument("--key", type=Path, required=True, metavar="PEM",
                             help="trusted public key, obtained out of band")  # fmt: skip
        command.add_argument("--allow-simulated", action="store_true",
                             help="accept a bundle from a simulation")  # fmt: skip
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _run(options: argparse.Namespace) -> dict[str, Any]:
    verified = verify_bundle(
        options.bundle, [load_key(options.key)], allow_simulated=options.allow_simulated
    )
    predicate = verified.predicate
    answer: dict[str, Any] = {
        "ok": True,
        "name": predicate["name"],
        "version": predicate["version"],
        "expires": predicate["expires"],
        "simulated": predicate["simulated"],
        "selftest_agreement": verified.selftest_agreement,
        "note": SIMULATED if predicate["simulated"] else "",
    }
    if options.verb == "predict":
        shape = tuple(verified.session.get_inputs()[0].shape[1:])
        labels, chances = predict(verified, read_input(options.input, shape))
        answer["labels"] = labels
        answer["probabilities"] = [[round(float(p), 6) for p in row] for row in chances]
    return answer


def _show(answer: dict[str, Any]) -> None:
    print(f"verified: {answer['name']}, version {answer['version']}, until {answer['expires']}")
    print(f"self-test agreement {answer['selftest_agreement']:.3f}")
    if answer["note"]:
        print(answer["note"])
    for label, chances in zip(
        answer.get("labels", ()), answer.get("probabilities", ()), strict=True
    ):
        print(f"{label}\t{max(chances):.4f}")


def main(arguments: Sequence[str] | None = None, *, prog: str = "device.py") -> int:
    """Run one verb and return its exit code; ``prog`` is the name in usage lines."""
    options = _parser(prog).parse_args(arguments)
    try:
        answer = _run(options)
    except DeviceError as error:
        if options.json:
            print(json.dumps({"ok": False, "code": error.code, "reason": error.reason}))
        else:
            print(f"refused: {error}" if error.exit_code == 77 else str(error), file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(answer))
    else:
        _show(answer)
    return 0
