"""``collegium demo``: the whole product in one run, offline."""

from __future__ import annotations

from typing import Any

import click

from .running import RunFlags, run_options, run_plan
from .verbs import example


@click.command(epilog=example("demo", "demo --task breast-cancer --out hospital-demo"))
@click.option(
    "--task",
    default="digits",
    show_default=True,
    metavar="digits|breast-cancer",
    help="What the four sites learn.",
)
@run_options("collegium-demo")
def command(task: str, **flags: Any) -> None:
    """Four sites fine-tune an open model with differential privacy, down to an edge bundle.

    Needs no network and no configuration; the records come with scikit-learn.
    """
    from ..simulations.demo import demo_plan

    run_plan(lambda: demo_plan(task), RunFlags(**flags), ["collegium", "demo", "--task", task])
