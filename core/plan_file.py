"""Read and write plan.toml, and put a command line's flags over a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import tomli_w

from .errors import InvalidPlan, Problem, UsageError
from .plan import Plan
from .plan_tables import examine, plan_tables
from .toml_file import read_toml


def examine_plan(path: Path) -> tuple[Plan, list[Problem]]:
    """Return the plan of a file, with holes, and every problem inside the file.

    Raises ``MissingInput`` when there is no file and ``InvalidPlan`` when it is not TOML.
    """
    plan, problems = examine(read_toml(path, InvalidPlan, example="plan.toml"))
    return (plan if problems else _beside(plan, path.absolute().parent)), problems


def _beside(plan: Plan, folder: Path) -> Plan:
    """Return the plan with its simulation's files as a whole path: they lie beside plan.toml."""
    simulation = plan.simulation
    if simulation is None or simulation.files is None:
        return plan
    return replace(plan, simulation=replace(simulation, files=str(folder / simulation.files)))


def read_plan(path: Path) -> Plan:
    """Return the checked plan of a file; raises ``InvalidPlan`` with all problems at once."""
    plan, problems = examine_plan(path)
    if problems:
        raise InvalidPlan(str(path), problems)
    return plan


def write_plan(plan: Plan) -> str:
    """Return a plan as TOML text; reading it gives an equal plan."""
    return tomli_w.dumps(plan_tables(plan))


def with_overrides(
    plan: Plan,
    *,
    rounds: int | None = None,
    epsilon: float | None = None,
    seed: int | None = None,
    privacy: bool | None = None,
) -> Plan:
    """Return the plan with the flags ``--rounds --epsilon --seed --no-privacy`` put over it.

    ``every:N`` with an N beyond a shortened run falls back to the last round. Raises
    ``InvalidPlan`` for a value out of range and ``UsageError`` for a seed without ``[simulation]``.
    """
    if rounds is not None:
        evaluation = plan.evaluation
        if evaluation.every > rounds:
            evaluation = replace(evaluation, rounds="last")
        plan = replace(plan, rounds=replace(plan.rounds, count=rounds), evaluation=evaluation)
    if epsilon is not None:
        plan = replace(plan, privacy=replace(plan.privacy, epsilon=epsilon))
    if privacy is not None:
        plan = replace(plan, privacy=replace(plan.privacy, enabled=privacy))
    if seed is not None:
        if plan.simulation is None:
            raise UsageError(
                "--seed needs a plan with [simulation]",
                why="Seeds exist in the simulator only",
                cure="add [simulation] to the plan, or leave --seed out",
            )
        plan = replace(plan, simulation=replace(plan.simulation, seed=seed))
    return plan
