"""A verb of the command line is a small function; here is its form, and what verbs share."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .envelope import read_key
from .errors import DeviceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a verb found: one object for ``--json``, lines for people, the exit code."""

    answer: dict[str, Any]
    lines: tuple[str, ...]
    exit_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: what ``--help`` says, which arguments it takes, what it does.

    ``run`` gets the parsed arguments and raises ``DeviceError`` where it refuses; ``--json`` is
    every verb's own. ``example`` is what one types after the verb.
    """

    name: str
    about: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Outcome]


def shown(text: str) -> str:
    """Return a name as it may stand on a terminal: what is no letter, sign or space is spelt out.

    A tab, a line's end, a terminal's own commands, letters that run the other way by command,
    and half a surrogate would all let a name say something that is not its own.
    """
    return "".join(
        each.encode("unicode_escape").decode() if _is_hidden(each) else each for each in text
    )


def _is_hidden(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind.startswith("C") or kind in ("Zl", "Zp")


def trust_arguments(parser: argparse.ArgumentParser) -> None:
    """Add whom to believe: keys, how many of them, and what of a simulation or too old."""
    add = parser.add_argument
    add("--key", action="append", default=[], metavar="KEY",
        help="trusted public key: PEM file, or ed25519:BASE64; may be given again")  # fmt: skip
    add("--threshold", type=int, default=1, metavar="K",
        help="how many of the keys must have signed (default 1)")  # fmt: skip
    add("--revoked", action="append", default=[], metavar="KEY",
        help="key whose signature counts no longer: PEM file, or ed25519:BASE64")  # fmt: skip
    add("--allow-simulated", action="store_true", help="accept a bundle from a simulation")
    add("--allow-expired", action="store_true",
        help="warn of an expired bundle: for devices without a clock")  # fmt: skip


def trusted_keys(options: argparse.Namespace) -> list[Ed25519PublicKey]:
    """Return the keys that were given; raises ``DeviceError`` for none, or too few."""
    keys = [read_key(text) for text in options.key]
    if not keys:
        raise DeviceError("USAGE", "name the trusted public key: --key PEM", 64)
    if not 1 <= options.threshold <= len({key.public_bytes_raw() for key in keys}):
        reason = f"--threshold {options.threshold} with {len(keys)} keys: none could be enough"
        raise DeviceError("USAGE", reason, 64)
    for text in options.revoked:
        read_key(text)  # a mistyped one would revoke nothing
    return keys
