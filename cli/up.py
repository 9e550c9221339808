"""``collegium up``: the plan as a real federation of processes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .running import RunFlags, run_options, run_plan
from .verbs import example


@click.command(
    epilog=example("up plan.toml --out federation", "up plan.toml --rounds 5 --out federation")
)
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@run_options("collegium-up")
def command(plan_path: Path, **flags: Any) -> None:
    """Run PLAN as real processes here: SuperLink, ServerApp, a SuperNode and a process per site.

    A lab roster with every key on this machine and seeded noise: the same model as `simulate`,
    through TLS, signatures and the wire, and no privacy guarantee. Ctrl-C ends all of it.
    """
    from ..server import planner

    run_plan(
        lambda: planner.check(plan_path),
        RunFlags(**flags),
        ["collegium", "up", str(plan_path)],
        processes=True,
    )
