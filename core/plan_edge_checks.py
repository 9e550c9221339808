"""What can be wrong in [edge] and [distillation]: names that mean nothing, keys that do nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .errors import Problem
from .fields import nearest, shown
from .forms import FAMILIES, digest_fault

if TYPE_CHECKING:
    from .plan import Plan

UNTRAINED = ("same", "none")
"""Students that learn nothing: the global model itself, or no edge stage."""
STUDENTS = (
    "auto", *UNTRAINED, "cnn:tiny", "cnn:small", "cnn:base", "mlp:tiny", "mlp:small", "mlp:base",
)  # fmt: skip
RECIPES = (
    "auto", "fp32", "int8-static", "int8-static-percentile", "int8-static-conv",
    "int8-static-s8s8", "int8-dynamic", "int8-dynamic-matmul",
)  # fmt: skip
TRANSFERS = ("auto", "public", "collegium:glyphs", "synthetic:bounds", "synthetic:noise")
_COUNTED = re.compile(r"(size|layers):[1-9][0-9]{0,9}")


def names(plan: Plan) -> Iterator[Problem]:
    """Student, transfer set and recipe are ones that there are."""
    edge = plan.edge
    family, _, rest = edge.student.partition(":")
    open_model = family in FAMILIES and bool(rest)
    if edge.student not in STUDENTS and not _COUNTED.fullmatch(edge.student) and not open_model:
        known = (*STUDENTS, "size:BYTES", "layers:N")
        yield _unknown("student", edge.student, known, "or the name of an open model")
    pinned = edge.transfer.startswith("sha256:") and not digest_fault(edge.transfer)
    if edge.transfer not in TRANSFERS and not pinned:
        yield _unknown("transfer", edge.transfer, TRANSFERS, "or the digest of a public set")
    if edge.recipe not in RECIPES:
        yield _unknown("recipe", edge.recipe, RECIPES, "")


def distillation(plan: Plan) -> Iterator[Problem]:
    """Only a student that learns is distilled, by a loss and from records that suit it."""
    asked, model = plan.distillation, plan.model
    if asked is None:
        return
    if asked.loss == "logit-std" and len(model.classes) < 3:
        yield Problem(
            where="[distillation] loss",
            what=f'is "logit-std" with {len(model.classes)} classes',
            why="Two standardised logits are always 1 and -1: they tell nothing",
            cure='write loss = "kl"',
        )
    if asked.augment != "none" and (
        model.bounds or model.categories or model.name.startswith("text:")
    ):
        yield Problem(
            where="[distillation] augment",
            what=f"is {shown(asked.augment)}, and the records of {shown(model.name)} are no images",
            why="It shifts and mirrors images",
            cure="remove augment",
        )
    if plan.edge.student in UNTRAINED:
        yield Problem(
            where="[distillation]",
            what=f"is set beside the student {shown(plan.edge.student)}",
            why="That student learns nothing",
            cure="remove the table, or name another [edge] student",
        )


def public_set(plan: Plan) -> Iterator[Problem]:
    """A simulation that wants public records must have some."""
    asked = plan.simulation
    given = plan.edge.transfer == "public" or plan.edge.transfer.startswith("sha256:")
    if asked is None or not given or asked.public_share or plan.edge.student == "none":
        return
    yield Problem(
        where="[simulation] public_share",
        what=f"is 0, and [edge] transfer is {shown(plan.edge.transfer)}",
        why="A simulation's public records are those that it sets aside",
        cure="write public_share = 0.2, or another transfer set",
    )


def _unknown(key: str, value: str, known: tuple[str, ...], more: str) -> Problem:
    guess = nearest(value, known)
    listed = ", ".join(known) + (f", {more}" if more else "")
    return Problem(
        where=f"[edge] {key}",
        what=f"{shown(value)} is not known",
        why="The edge stage comes after the last round: a wrong name would be found too late",
        cure=f'did you mean "{guess}"?' if guess else f"use one of {listed}",
    )


RULES: tuple[Callable[[Plan], Iterator[Problem]], ...] = (names, distillation, public_set)
