"""``collegium plan``: all problems of a plan at once, or what it will spend and send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .plan_leaves import leaves
from .plan_sign import command as sign
from .verbs import example

if TYPE_CHECKING:
    from rich.table import Table

    from ..core.plan import Plan
    from ..server.planner import Forecast

_PLAN = click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(epilog=example("plan check plan.toml", "plan explain plan.toml"))
def group() -> None:
    """Check a plan, explain what it will spend and send, or sign it.

    Reads no records and no weights.
    """


@group.command(epilog=example("plan check plan.toml"))
@_PLAN
@_JSON
def check(plan_path: Path, as_json: bool) -> None:
    """Report every problem of PLAN at once; 65 when there are any."""
    from ..server import planner

    plan = planner.check(plan_path)
    if as_json:
        click.echo(json.dumps({"ok": True, "plan_sha256": plan.digest, "problems": []}))
        return
    privacy = f"epsilon {plan.privacy.epsilon:g}" if plan.privacy.enabled else "no privacy"
    click.echo(
        f"{plan_path}: no problems "
        f"({plan.consortium}, {len(plan.sites)} sites, {plan.rounds.count} rounds, {privacy})"
    )
    click.echo(f"Next: collegium plan explain {plan_path}")


@group.command(epilog=example("plan explain plan.toml", "plan explain plan.toml --json"))
@_PLAN
@_JSON
def explain(plan_path: Path, as_json: bool) -> None:
    """Say what PLAN spends, sends and computes, and what leaves a site."""
    from ..server import planner

    plan = planner.check(plan_path)
    forecast = planner.resolve(plan)
    if as_json:
        click.echo(json.dumps(_machine(plan, forecast), ensure_ascii=False))
        return
    _print(plan, forecast)


group.add_command(sign)


def _machine(plan: Plan, forecast: Forecast) -> dict[str, Any]:
    from ..core.plan_tables import plan_tables

    return {**asdict(forecast), "leaves_a_site": list(leaves(plan, forecast))} | {
        "plan": plan_tables(plan)
    }


def _print(plan: Plan, forecast: Forecast) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(plan.consortium, style="bold"), Text(forecast.plan_sha256[:23], "dim"))
    console.print(_facts(_about(plan, forecast)))
    console.print(_sites(forecast))
    console.print(_facts(_costs(plan, forecast)))
    for note in forecast.notes:
        console.print(Padding(Text(f"Note: {note}", style="yellow"), (1, 0, 0, 0)))


def _about(plan: Plan, forecast: Forecast) -> Iterator[tuple[str, str]]:
    part = forecast.trainable_parameters / forecast.total_parameters
    yield (
        "Model",
        (
            f"{forecast.model} for {plan.model.task}{_classes(plan)}; trains "
            f"{plan.model.trainable}: {forecast.trainable_parameters:,} of "
            f"{forecast.total_parameters:,} parameters ({part:.1%})"
        ),
    )
    if forecast.cured:
        yield "Made trainable", f"{forecast.cured}; pre-trained weights and statistics are kept"
    rounds = plan.rounds
    steps = f"{rounds.local_steps} step{'s' * (rounds.local_steps > 1)}"
    yield (
        "Rounds",
        (
            f"{rounds.count} of {steps} per site; {plan.strategy.name} at the coordinator; "
            f"quorum {rounds.quorum:.0%}"
        ),
    )
    privacy = plan.privacy
    if not privacy.enabled:
        yield "Privacy", "off: no noise, no guarantee, no epsilon"
        return
    yield (
        "Privacy",
        (
            f"epsilon {forecast.epsilon:.3f} of {privacy.epsilon:g} at delta {privacy.delta:g}, at "
            f"every site; unit {privacy.unit}, neighbours {privacy.relation}; clip norm "
            f"{privacy.clip_norm:g}"
        ),
    )


def _classes(plan: Plan) -> str:
    return f", {len(plan.model.classes)} classes" if plan.model.classes else ""


def _sites(forecast: Forecast) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("site")
    for name in ("records", "q", "normaliser", "weight", "noise", "epsilon"):
        table.add_column(name, justify="right")
    for site in forecast.sites:
        table.add_row(
            Text(site.name),
            f"{site.public_records:,}",
            f"{site.sampling_rate:g}",
            f"{site.normaliser:g}",
            f"{site.weight:.1%}",
            f"{site.noise_multiplier:.4f}",
            "-" if site.epsilon is None else f"{site.epsilon:.3f}",
        )
    return table


def _costs(plan: Plan, forecast: Forecast) -> Iterator[tuple[str, str]]:
    if forecast.epsilon_by_round:
        spent = "  ".join(f"{n}: {value:.2f}" for n, value in forecast.epsilon_by_round)
        yield "Epsilon by round", spent
        yield (
            "Noise per step",
            (
                f"{forecast.noise_share:.2f} of the clip norm in the combined step, "
                f"{forecast.noise_share_alone:.2f} at the smallest site alone"
            ),
        )
    yield (
        "Bytes",
        (
            f"{_size(forecast.bytes_up)} up ({plan.codec.name}) and {_size(forecast.bytes_down)} "
            f"down per site and round; {_size(forecast.bytes_total)} in all"
        ),
    )
    yield (
        "Work",
        (
            f"{forecast.record_passes:,.0f} record passes over all sites; at most "
            f"{forecast.longest_minutes:,.0f} minutes, if every round ran into its deadline"
        ),
    )
    yield "Leaves a site", "; ".join(leaves(plan, forecast))


def _facts(rows: Iterator[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=16, style="cyan")
    grid.add_column()
    for name, value in rows:
        grid.add_row(name, Text(value))
    return grid


def _size(count: int) -> str:
    """Return bytes in the largest decimal unit that keeps the number above one."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
