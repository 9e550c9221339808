"""The verbs of the command line, in the order of the help page; imported when used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import click

from ..core.fields import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb: ``module`` holds its click command, as ``attribute``."""

    help: str
    module: str
    attribute: str = "command"


SECTIONS: Mapping[str, Mapping[str, Verb]] = MappingProxyType(
    {
        "Start here": {
            "demo": Verb(help="The whole product in one run, offline.", module="demo"),
            "init": Verb(help="Write a commented plan.toml and site.toml.", module="init"),
            "plan": Verb(
                help="Check a plan, explain its cost, sign it.", module="plan", attribute="group"
            ),
            "simulate": Verb(help="Run a whole plan on this machine.", module="simulate"),
        },
        "What a run leaves": {
            "report": Verb(help="One self-contained HTML file of a run.", module="report"),
            "ledger": Verb(help="What each asset has spent.", module="ledger", attribute="group"),
            "audit": Verb(help="Conformance and leakage of a run.", module="audit"),
            "publish": Verb(
                help="Distil, quantize, gate, sign: the edge bundle.", module="publish"
            ),
            "edge": Verb(
                help="Verify, predict, pull; publish for devices.",
                module="edge",
                attribute="group",
            ),
        },
        "A real federation": {
            "up": Verb(help="The plan as real processes on this machine.", module="up"),
            "consortium": Verb(
                help="Make a member's keys.", module="consortium", attribute="group"
            ),
            "site": Verb(help="Run a site beside its records.", module="site", attribute="group"),
            "provision": Verb(
                help="Certificates, signed roster, one kit per site.", module="provision"
            ),
            "coordinator": Verb(
                help="Run the Flower side.", module="coordinator", attribute="group"
            ),
        },
    }
)


class Verbs(click.Group):
    """A click group that imports a verb's module only when that verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all verbs, in the order of the help page."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the verb's command."""
        verb = next((verbs[cmd_name] for verbs in SECTIONS.values() if cmd_name in verbs), None)
        if verb is None:
            return None
        return getattr(importlib.import_module(f"{__package__}.{verb.module}"), verb.attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for an unknown one name the nearest."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            guess = nearest(args[0], known)
            hint = f" Did you mean '{guess}'?" if guess else ""
            ctx.fail(f"There is no verb '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help page's sections from the table alone: nothing is imported."""
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.help) for name, verb in verbs.items()])


def example(*lines: str) -> str:
    """Return the closing paragraph of a help text: what one types."""
    return "\n".join(["\b", "Example:", *(f"  collegium {line}" for line in lines)])
