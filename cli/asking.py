"""The question before a signature: asked of a person, or answered by ``--yes``."""

from __future__ import annotations

import sys

import click

from ..core.errors import Refused, UsageError


def ask_to_sign(*, yes: bool, as_json: bool) -> None:
    """Return on a yes; raise ``Refused`` on a no, ``UsageError`` where nobody is here to ask."""
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            "nothing was signed",
            why="nobody is here to be asked",
            cure="read the above, then pass --yes",
        )
    if not click.confirm("Sign this?"):
        raise Refused("nothing was signed", why="you said no")
