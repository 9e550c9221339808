"""Publish a simulated run once more: its plan and vector, and the public sets made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..client.train import Trainer
from ..core.errors import InvalidInput, MissingInput, NotAvailable, OutputExists
from ..core.plan import Plan
from ..models.fitted import build_for
from ..server.models_out import read_vector_file
from ..server.publish import Progress, publish_run
from ..server.result import read_result
from .records import simulation_seed, split_records


def publish_simulated(
    folder: Path, *, out: Path, key: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Make a bundle of the finished run in ``folder``; return the ``edge`` entry of its result.

    Raises ``MissingInput`` without a finished run, ``OutputExists`` when ``out`` holds
    something, ``NotAvailable`` for a custom run, whose model the plan does not describe.
    """
    values = read_result(folder)
    if len(values["seeds"]) > 1:
        raise MissingInput(
            f"{folder} holds several runs",
            why="medians are no model",
            cure=f"name one of them, like {folder / 'seeds' / str(values['seeds'][0])}",
        )
    if values["custom"] or not values["simulated"]:
        raise NotAvailable(
            f"the run in {folder} cannot be published from its folder",
            why="its sites, model or strategy were objects that the plan does not describe"
            if values["custom"]
            else "this version publishes simulated runs only",
            cure="publish from the program that ran it",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExists(
            f"{out} is not empty", why="a bundle never overwrites another", cure="name another"
        )
    plan = Plan.load(folder / "plan.toml")
    if plan.digest != values["plan_sha256"]:
        raise InvalidInput(
            f"{folder / 'plan.toml'} is not the plan of this run",
            why="its digest differs from the one in result.json",
            cure="restore the file",
        )
    torch.set_num_threads(1)
    vector, _ = read_vector_file(folder)
    teacher = Trainer(build_for(plan), plan).load(vector)
    return publish_run(
        plan,
        folder,
        values,
        teacher,
        split_records(plan).test,
        simulated=True,
        seed=simulation_seed(plan),
        out=out,
        key=key,
        progress=progress,
    )
