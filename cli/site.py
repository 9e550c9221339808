"""``collegium site``: a site's own verbs; each is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

import click

from .verbs import example

_COMMANDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "enroll": ("site_enroll", "enroll", "Make the site's keys and a request."),
        "preflight": ("site_preflight", "command", "Check everything before connecting."),
        "approve": ("site_approve", "command", "Say in writing that the plan may run here."),
        "start": ("site_start", "command", "Run the site until it is stopped."),
        "status": ("site_status", "command", "Where the running site stands."),
    }
)


class SiteVerbs(click.Group):
    """A group that imports a verb's module only when that verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which a new site needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the verb's command, None for an unknown one."""
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help page from the table alone: nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words[2]) for name, words in _COMMANDS.items()])


@click.group(
    cls=SiteVerbs,
    epilog=example(
        "site preflight site.toml",
        "site approve site.toml",
        "site start site.toml",
    ),
)
def group() -> None:
    """Run a site beside its records.

    SITE.toml is the site's own file: where its records are and what it allows.
    """
