"""``collegium simulate``: a whole plan on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .running import RunFlags, run_options, run_plan
from .verbs import example


@click.command(
    epilog=example(
        "simulate plan.toml --out run",
        "simulate plan.toml --out run --resume",
        "simulate plan.toml --out five --seeds 5 --json",
    )
)
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@run_options("collegium-run")
def command(plan_path: Path, **flags: Any) -> None:
    """Run PLAN with every site in this process: rounds, baselines, edge model, report.

    The noise is seeded, so a simulation gives no privacy guarantee.
    """
    from ..server import planner

    run_plan(
        lambda: planner.check(plan_path),
        RunFlags(**flags),
        ["collegium", "simulate", str(plan_path)],
    )
