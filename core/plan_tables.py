"""Between the tables of plan.toml and the plan: the file's layout, read and written one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from .errors import Problem
from .fields import about, homes_of, keys_of
from .forms import text_fault
from .plan import (
    CodecConfig,
    EdgeConfig,
    Evaluation,
    ModelRef,
    Plan,
    Privacy,
    Rounds,
    Simulation,
    SiteRef,
    StrategyConfig,
)
from .plan_checks import RULES, schema_problems
from .plan_edge import Distillation
from .plan_federation import Federation
from .plan_fitting import Calibration, Statistics
from .plan_training import Training
from .reading import HOLE, Reader, apply_rules, to_table, with_holes

SCHEMA = 1
_ADDED = {
    "model": (
        "hub", "bounds", "categories", "missing", "unknown", "image", "options", "class_weights",
        "target",
    ),
    "strategy": ("ema",),
    "edge": ("prefer", "target", "min_fidelity", "max_auc_drop", "valid_days"),
}  # fmt: skip
"""Keys that stand in a plan's tables only where they say something.

Plans that were signed before these keys existed keep their digest.
"""
_DERIVED = "remove it: it is derived from epsilon and shown by `collegium plan explain`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """Who agrees on this plan."""

    name: str = field(
        metadata=about(
            "Name of the consortium, as it stands in reports",
            fault=text_fault,
            form='a text, like "four-hospitals"',
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """The tables of plan.toml, in order; all but ``[simulation]`` is what members sign."""

    schema: int = field(metadata=about("Version of this file's format; 1 today"))
    consortium: Consortium
    sites: tuple[SiteRef, ...] = field(
        metadata=about("The roster; its order is the order in which updates are folded")
    )
    model: ModelRef
    rounds: Rounds
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    evaluation: Evaluation = field(default_factory=Evaluation)
    privacy: Privacy = field(default_factory=Privacy)
    statistics: Statistics | None = None
    training: Training | None = None
    calibration: Calibration | None = None
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    distillation: Distillation | None = None
    federation: Federation | None = None
    simulation: Simulation | None = None


def examine(tables: Mapping[str, Any]) -> tuple[Plan, list[Problem]]:
    """Return the plan with holes where values cannot be read, and every problem of the file."""
    reader = Reader(hints={**homes_of(PlanFile), "noise_multiplier": _DERIVED})
    file = reader.table(PlanFile, tables)
    problems = reader.problems + apply_rules([schema_problems], file)
    values: dict[str, object] = {f.name: getattr(file, f.name, HOLE) for f in fields(Plan)}
    values["consortium"] = getattr(getattr(file, "consortium", None), "name", HOLE)
    plan = with_holes(Plan, values)
    return plan, in_file_order(problems + apply_rules(RULES, plan))


def in_file_order(problems: list[Problem]) -> list[Problem]:
    """Return problems sorted by the table they are in, as the tables stand in a plan."""
    order = {name: place for place, name in enumerate(keys_of(PlanFile))}

    def place(problem: Problem) -> int:
        return order.get(problem.where.lstrip("[").partition("]")[0].partition(".")[0], -1)

    return sorted(problems, key=place)


def plan_tables(plan: Plan) -> dict[str, Any]:
    """Return a plan as the tables of its file, in file order."""
    tables = to_table(plan)
    consortium = {"name": tables.pop("consortium")} if "consortium" in tables else {}
    for table, names in _ADDED.items():
        part = getattr(plan, table)
        kind = keys_of(type(part)) if is_dataclass(part) else {}
        for name in names:
            default = kind[name].default if name in kind else None
            if default and tables[table].get(name, HOLE) in (default(), to_table(default())):
                del tables[table][name]
    return {"schema": SCHEMA, "consortium": consortium, **tables}


def plan_problems(plan: Plan) -> list[Problem]:
    """Return everything that is wrong with a plan built by hand: the checks of the file."""
    return examine(plan_tables(plan))[1]


def agreement_of(plan: Plan) -> dict[str, Any]:
    """Return the plain values that members sign; numbers have their declared type.

    A whole number in the place of a float gives the same agreement as that float. Bounds and
    categories become lists, because their order is the order of the columns.
    """
    tables = plan_tables(examine(plan_tables(plan))[0])
    tables.pop("simulation", None)
    model = tables["model"]
    model["bounds"] = [[name, *ends] for name, ends in model.pop("bounds", {}).items()]
    if "categories" in model:
        model["categories"] = [[name, *known] for name, known in model["categories"].items()]
    return tables
