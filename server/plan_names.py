"""Does this version know the names in a plan, do they fit each other, and is all of it here?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..core.errors import NotAvailable, Problem
from ..core.fields import nearest, shown
from ..core.plan import Plan
from ..core.plugins import Group, is_plugin, plugin_names
from ..models import registry
from .plan_model_names import RULES as MODEL_RULES
from .plan_model_names import known_card

STRATEGIES = ("mean", "fedadam")
FILES = "files"
DATASETS: dict[str, tuple[int, tuple[int, ...]]] = {
    "sklearn:digits": (10, (8, 8)),
    "sklearn:breast_cancer": (2, (30,)),
}
"""Classes and shape of one record of the data sets that the simulator brings; public facts."""


def _strategy(plan: Plan) -> Iterator[Problem]:
    if plan.strategy.name not in STRATEGIES and not is_plugin(plan.strategy.name):
        why = "No installed strategy has this name"
        known = (*STRATEGIES, *plugin_names("strategies"))
        yield _unknown("[strategy] name", plan.strategy.name, known, why)


def _dataset(plan: Plan) -> Iterator[Problem]:
    if plan.simulation is None or plan.simulation.dataset == FILES:
        return
    name = plan.simulation.dataset
    if name not in DATASETS:
        why = "The simulator brings its own data sets and downloads none"
        yield _unknown("[simulation] dataset", name, (*DATASETS, FILES), why)
        return
    count, shape = DATASETS[name]
    if plan.model.classes and len(plan.model.classes) != count:
        yield Problem(
            where="[model] classes",
            what=f"has {len(plan.model.classes)} names, but {shown(name)} has {count} classes",
            why="Every label needs its own output",
            cure=f"list {count} names, or choose another data set in [simulation]",
        )
    expected = registry.input_shape(plan.model) if known_card(plan) else ()
    if expected and expected != shape:
        yield Problem(
            where="[simulation] dataset",
            what=f"records of {shown(name)} have shape {shape}, the model reads {expected}",
            why="A model reads records of one shape",
            cure="choose a model and a data set that fit, or give one bound per feature",
        )


def _unknown(where: str, name: str, known: Iterable[str], why: str) -> Problem:
    guess = nearest(name, known)
    choices = " or ".join(f'"{choice}"' for choice in known)
    cure = f'did you mean "{guess}"? Known: {choices}' if guess else f"write {choices}"
    return Problem(where=where, what=f"{shown(name)} is not known", why=why, cure=cure)


RULES: tuple[Callable[[Plan], Iterator[Problem]], ...] = (*MODEL_RULES, _strategy, _dataset)


def require_built(plan: Plan) -> None:
    """Raise ``NotAvailable`` naming every plug-in of a valid plan that is not installed here."""
    missing = list(_missing(plan))
    if missing:
        raise NotAvailable(
            "This plan is valid, but it cannot run here: " + "; ".join(missing),
            why="these plug-ins are not installed",
            cure="install the packages that offer them, or change these keys",
        )


def _missing(plan: Plan) -> Iterator[str]:
    """Yield each key of the plan that names a plug-in which no installed package offers."""
    asked: tuple[tuple[str, Group, str], ...] = (
        ("[model] name", "models", plan.model.name),
        ("[model] task", "tasks", plan.model.task),
        ("[strategy] name", "strategies", plan.strategy.name),
    )
    for where, group, name in asked:
        if is_plugin(name) and name not in plugin_names(group):
            yield f"{where} = {shown(name)}"
