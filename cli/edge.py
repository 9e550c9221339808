"""``collegium edge``: the device's own verbs, and what a publisher does for devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import click

from .edge_publish import device, index, sign, withdraw
from .verbs import example

VERBS: Mapping[str, str] = MappingProxyType(
    {
        "verify": "Check a bundle, or what runs in a home; 77 when it is refused.",
        "predict": "Verify a bundle, or a home's, then answer for records.",
        "init": "Make a device's home: what it follows and whom it trusts.",
        "pull": "Fetch, check and switch to the newest version.",
        "rollback": "Go back to the version before, and never take this one again.",
        "health": "Say in one line what runs and whether it may.",
    }
)
"""The device's verbs; their options and help pages are those of the device's own program."""


@click.group(
    epilog=example(
        "edge verify bundle --key bundle.pub",
        "edge init home --from https://models.example.org/pilot --key bundle.pub",
        "edge pull home",
    )
)
def group() -> None:
    """Verify a bundle and predict; keep a device up to date; publish for devices.

    verify, predict, init, pull, rollback and health are what the one file device.py does, which
    a device runs without this package and without torch: `collegium edge device` writes it.
    """


class DeviceVerb(click.Command):
    """A verb whose words all go to the device's program, ``--help`` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take all words as they are, ``--`` too: the device's program reads them."""
        ctx.params["words"] = tuple(args)
        return []

    def invoke(self, ctx: click.Context) -> int:
        """Run the device's program; return its exit code."""
        return _device([str(ctx.info_name), *ctx.params["words"]])


def _device(words: Sequence[str]) -> int:
    """Run the device's own program on these words; return its exit code."""
    from ..edge import device as room

    try:
        return room.main(words, prog="collegium edge")
    except SystemExit as end:  # how argparse ends after --help and wrong usage
        return end.code if isinstance(end.code, int) else 64


for _name, _about in VERBS.items():
    group.add_command(
        DeviceVerb(
            _name,
            params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
            add_help_option=False,
            help=_about,
        )
    )
for _command in (device, index, withdraw, sign):
    group.add_command(_command)
