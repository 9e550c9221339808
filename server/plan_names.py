"""Does this version know the names in a plan, do they fit each other, and is all of it built?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..core.errors import InvalidInput, NotBuiltYet, Problem
from ..core.fields import nearest, shown
from ..core.plan import Plan
from ..models import registry

STRATEGIES = ("mean", "fedadam")
DATASETS: dict[str, tuple[int, tuple[int, ...]]] = {
    "sklearn:digits": (10, (8, 8)),
    "sklearn:breast_cancer": (2, (30,)),
}
"""Classes and shape of one record of the data sets that the simulator brings; public facts."""


def _model(plan: Plan) -> Iterator[Problem]:
    try:
        card = registry.card(plan.model.name)
    except NotBuiltYet:
        return
    except InvalidInput as error:
        yield _unknown("[model] name", plan.model.name, registry.names(), str(error.why))
        return
    if plan.model.weights is not None and plan.model.weights != card.weights:
        cure = f'write weights = "{card.weights}"' if card.weights else "remove weights"
        yield Problem(
            where="[model] weights",
            what=f"is not the digest of the weights of {plan.model.name} in this version",
            why="Every site must start from the same bytes",
            cure=cure,
        )


def _strategy(plan: Plan) -> Iterator[Problem]:
    if plan.strategy.name not in STRATEGIES:
        why = "No installed strategy has this name"
        yield _unknown("[strategy] name", plan.strategy.name, STRATEGIES, why)


def _dataset(plan: Plan) -> Iterator[Problem]:
    if plan.simulation is None:
        return
    name = plan.simulation.dataset
    if name not in DATASETS:
        why = "The simulator brings its own data sets and downloads none"
        yield _unknown("[simulation] dataset", name, DATASETS, why)
        return
    count, shape = DATASETS[name]
    if plan.model.classes and len(plan.model.classes) != count:
        yield Problem(
            where="[model] classes",
            what=f"has {len(plan.model.classes)} names, but {shown(name)} has {count} classes",
            why="Every label needs its own output",
            cure=f"list {count} names, or choose another data set in [simulation]",
        )
    expected = _input_shape(plan)
    if expected and expected != shape:
        yield Problem(
            where="[simulation] dataset",
            what=f"records of {shown(name)} have shape {shape}, the model reads {expected}",
            why="A model reads records of one shape",
            cure="choose a model and a data set that fit, or give one bound per feature",
        )


def _input_shape(plan: Plan) -> tuple[int, ...]:
    """Return the shape of one record as the model reads it, () when the model is not known."""
    try:
        shape = registry.card(plan.model.name).input_shape
    except (InvalidInput, NotBuiltYet):
        return ()
    return shape or (len(plan.model.bounds),)


def _unknown(where: str, name: str, known: Iterable[str], why: str) -> Problem:
    guess = nearest(name, known)
    choices = " or ".join(f'"{choice}"' for choice in known)
    cure = f'did you mean "{guess}"? Known: {choices}' if guess else f"write {choices}"
    return Problem(where=where, what=f"{shown(name)} is not known", why=why, cure=cure)


RULES: tuple[Callable[[Plan], Iterator[Problem]], ...] = (_model, _strategy, _dataset)


def require_built(plan: Plan) -> None:
    """Raise ``NotBuiltYet`` naming every key of a valid plan that asks for a later version."""
    missing = list(_later(plan))
    if missing:
        raise NotBuiltYet(
            "This plan is valid, but this version cannot run it: " + "; ".join(missing),
            cure="change these keys, or wait for the version that has them",
        )


def _later(plan: Plan) -> Iterator[str]:
    """Yield each key of the plan that asks for a later version."""
    if plan.model.task != "classification":
        yield f"[model] task = {shown(plan.model.task)} (only 'classification' is built)"
    for ask in (
        lambda: registry.card(plan.model.name),
        lambda: registry.trainable_size(plan.model),
    ):
        try:
            ask()
        except NotBuiltYet as error:
            yield f"[model] {error.what}"
            return
