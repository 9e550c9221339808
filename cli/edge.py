"""``collegium edge``: the same code as the single file that a device runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from .verbs import example, unbuilt

F = TypeVar("F", bound=Callable[..., Any])


@click.group(epilog=example("edge verify bundle --key bundle.pub"))
def group() -> None:
    """Verify a bundle, or predict with it.

    A device needs neither this package nor torch: it runs the file edge/device.py alone.
    """


def _options(function: F) -> F:
    """Give a verb what both take: the trusted key, and leave for a simulated bundle."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--allow-simulated",
            is_flag=True,
            help="Take a bundle whose noise was seeded: it has no privacy guarantee.",
        ),
        click.option(
            "--key", required=True, metavar="PEM", help="Public key that is trusted to sign."
        ),
    ):
        function = option(function)
    return function


@group.command(epilog=example("edge verify bundle --key bundle.pub --allow-simulated"))
@click.argument("bundle", metavar="BUNDLE")
@_options
def verify(bundle: str, key: str, allow_simulated: bool, as_json: bool) -> int:
    """Check signature, digests, expiry and self-test of BUNDLE; 77 when it is refused."""
    return _device(["verify", bundle, *_flags(key, allow_simulated, as_json)])


@group.command(epilog=example("edge predict bundle input.npy --key bundle.pub --json"))
@click.argument("bundle", metavar="BUNDLE")
@click.argument("records", metavar="INPUT")
@_options
def predict(bundle: str, records: str, key: str, allow_simulated: bool, as_json: bool) -> int:
    """Verify BUNDLE, then answer for the raw records in INPUT (.npy or .csv)."""
    return _device(["predict", bundle, records, *_flags(key, allow_simulated, as_json)])


def _flags(key: str, allow_simulated: bool, as_json: bool) -> list[str]:
    flags = [f"--key={key}"]
    flags += ["--allow-simulated"] if allow_simulated else []
    return [*flags, "--json"] if as_json else flags


def _device(words: Sequence[str]) -> int:
    """Run the device's own program on these words; return its exit code."""
    from ..edge import device

    return device.main(words, prog="collegium edge")


group.add_command(unbuilt("pull", "Fetch a newer bundle.", ("URL",)))
group.add_command(unbuilt("rollback", "Go back to the bundle before.", ("BUNDLE",)))
