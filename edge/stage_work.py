"""The steps of one edge stage before the gate: public inputs, student, candidates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..core.errors import InvalidInput
from ..core.plan import Plan
from ..core.plan_model import ModelRef
from ..data.public import PublicSet
from ..data.transfer import GLYPH_SET, GLYPH_SHAPE, known_size, takes_given
from ..models import registry
from ..privacy.origin import require_releasable
from .distill import distil
from .distill_vary import reads_of
from .export import export_onnx, raw_dtype
from .inputs_json import sample_texts
from .papers import Inputs
from .quantize import quantize, recipes
from .rescale import rescaled
from .students import SAME, Built, built_student, parameter_count, recipe_for, resolve_student
from .students_words import architecture

log = logging.getLogger(__name__)

CALIBRATION, SELFTEST = 512, 32  # records of the transfer set, where it has so many
LEAST_SELFTEST, SELFTEST_VALUES = 8, 1 << 21  # large pictures: fewer of them, a small file
LEAST_CALIBRATION = 64

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the run says of the model, for the papers; ``audit`` is its audit.json or None.

    ``custom``: its sites, model or strategy were objects that the plan does not describe.
    """

    privacy: Mapping[str, Any]
    lineage: Mapping[str, Any]
    global_bytes: int
    simulated: bool
    audit: Mapping[str, Any] | None = None
    custom: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every step of one stage shares; ``texts`` are the self-test's, of text models."""

    teacher: nn.Module
    plan: Plan
    transfer: PublicSet
    inputs: Inputs
    statement: Statement
    seed: int
    progress: Progress
    texts: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """Return the global model's name, as far as the plan describes it."""
        return "custom" if self.statement.custom else self.plan.model.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """The small model, trained: its kind, its size, and the settings that it learned with.

    ``architecture`` says in words what it is; ``start`` is the open model that it was, with the
    weights that it really began with, None for a student that is no open model.
    """

    model: nn.Module
    kind: str
    parameters: int
    architecture: str = ""
    start: ModelRef | None = None
    settings: Mapping[str, Any] | None = None


def raw(x: NDArray[np.generic]) -> NDArray[Any]:
    """Return records (n, ...) in the type that the graph reads: uint8, int32 or float32."""
    return x.astype(raw_dtype(x.dtype), copy=False)


def inputs_of(plan: Plan, transfer: PublicSet, test: PublicSet) -> tuple[Inputs, tuple[str, ...]]:
    """Name the sets by their use, and return the texts of a text model's self-test.

    Calibration and self-test are parts of the transfer set; a text model's self-test is made of
    synthetic texts, so that the device's tokenizer is tested, too. Raises ``Refused`` for private
    records and ``InvalidInput`` for too few.
    """
    require_releasable(transfer.origin, "distillation, calibration and self-test")
    require_releasable(test.origin, "the parity gate")
    asked = int(np.clip(SELFTEST_VALUES // max(1, transfer.x[:1].size), LEAST_SELFTEST, SELFTEST))
    needed = LEAST_CALIBRATION + asked
    if len(transfer) < needed or len(test) == 0:
        raise InvalidInput(
            f"{len(transfer)} transfer and {len(test)} test records",
            why=f"the edge stage needs at least {needed} and 1",
            cure="give larger public or synthetic sets",
        )
    classes = len(plan.model.classes)
    if test.y is not None and not 0 <= int(test.y.min()) <= int(test.y.max()) < classes:
        raise InvalidInput(
            f"'{test.name}' has labels of no class of the plan",
            why=f"the plan's classes are numbered 0 to {classes - 1}",
            cure="give labels as indices into [model] classes",
        )
    if transfer.x.shape[1:] != test.x.shape[1:]:
        raise _unlike(transfer.name, transfer.x.shape[1:], test.x.shape[1:])
    _require_one_type(transfer, test)
    cut = min(CALIBRATION, len(transfer) - asked)
    texts: tuple[str, ...] = ()
    selftest = _part(transfer, "selftest", cut, cut + asked)
    if registry.input_kind(plan.model) == "text":
        texts = tuple(sample_texts(SELFTEST))
        x = registry.encode(plan.model, np.array(texts))
        selftest = PublicSet(name="synthetic:texts", origin="synthetic", x=x)
    found = Inputs(
        transfer=transfer,
        calibration=_part(transfer, "calibration", 0, cut),
        selftest=selftest,
        parity=test,
    )
    return found, texts


def require_ready(plan: Plan, teacher: nn.Module, test: PublicSet, given: PublicSet | None) -> None:
    """Raise ``InvalidInput`` for what the stage could not do with these records and this model.

    Asked before the first round, so that a name that does not fit costs no run its last stage:
    the student is built untrained, a recipe that is named tried on its graph, the transfer set's
    shape and size looked at. ``teacher`` is the open model, which is not changed.
    """
    edge, shape = plan.edge, test.x.shape[1:]
    if edge.transfer == GLYPH_SET and shape != GLYPH_SHAPE:
        raise _unlike(GLYPH_SET, GLYPH_SHAPE, shape)
    if given is not None and takes_given(plan):
        _require_one_type(given, test)
    kind, student = _untrained(plan, teacher, shape, seed=0)
    least = LEAST_CALIBRATION + SELFTEST
    if kind != SAME:
        recipe = recipe_for(kind, plan.distillation, classes=len(plan.model.classes))
        least = max(least, recipe.batch)
    size = known_size(plan, given)
    if size is not None and size < least:
        raise InvalidInput(
            f"the transfer set has {size} records",
            why=f"the edge stage needs {least} for batches, calibration and self-test",
            cure="set more aside, or write a smaller [distillation] batch",
        )
    if edge.recipe != "auto":
        recipes(export_onnx(student.model, raw(test.x[:3])), edge.recipe, edge.target)


def _untrained(
    plan: Plan, teacher: nn.Module, shape: tuple[int, ...], *, seed: int
) -> tuple[str, Built]:
    """Return the student's kind and the student; the teacher itself for ``same``."""
    kind = resolve_student(
        plan.edge.student, shape, kind=registry.input_kind(plan.model), teacher=teacher
    )
    student = built_student(
        kind,
        teacher,
        shape=shape,
        classes=len(plan.model.classes),
        seed=seed,
        model=plan.model,
    )
    return kind, student


def student_of(work: Work) -> Student:
    """Return the trained student, or the teacher itself."""
    plan, transfer = work.plan, work.transfer
    kind, built = _untrained(plan, work.teacher, transfer.x.shape[1:], seed=work.seed)
    student = built.model
    found = Student(
        model=student,
        kind=kind,
        parameters=parameter_count(student),
        architecture=architecture(kind, student, work.base),
        start=built.start,
    )
    if kind == SAME:
        return found
    recipe = recipe_for(kind, plan.distillation, classes=len(plan.model.classes))
    done = distil(
        work.teacher,
        student,
        transfer,
        recipe=recipe,
        seed=work.seed,
        reads=reads_of(plan.model),
        progress=lambda share: work.progress("distil", share),
    )
    log.info("distilled '%s' in %d steps, loss %.4f", kind, done.steps, done.loss)
    settings = asdict(recipe) | {"steps": done.steps, "kept_step": done.kept_step}
    if recipe.loss == "logit-std":  # it teaches the order of the answers, not how sure they are
        student = rescaled(work.teacher, student, transfer.x)
        settings["scale"] = round(float(student.get_buffer("factor")), 6)
    return replace(found, model=student, settings=settings)


def candidates_of(work: Work, student: nn.Module) -> dict[str, bytes]:
    """Return ONNX bytes by recipe, fp32 first."""
    edge = work.plan.edge
    work.progress("export", 0.0)
    exported = export_onnx(student, raw(work.inputs.selftest.x))
    work.progress("quantize", 0.0)
    return {
        recipe: quantize(exported, recipe, work.inputs.calibration, edge.target)
        for recipe in recipes(exported, edge.recipe, edge.target)
    }


def _part(whole: PublicSet, use: str, start: int, stop: int) -> PublicSet:
    return PublicSet(name=f"{whole.name}#{use}", origin=whole.origin, x=whole.x[start:stop])


def _require_one_type(transfer: PublicSet, test: PublicSet) -> None:
    """Raise ``InvalidInput`` unless both are handed to the model as numbers of one type.

    The graph reads those of the one, and input.json promises a device those of the other.
    """
    own, wanted = raw_dtype(transfer.x.dtype), raw_dtype(test.x.dtype)
    if own != wanted:
        raise InvalidInput(
            f"the transfer set '{transfer.name}' holds numbers of type {own}",
            why=f"those of the test part '{test.name}' have the type {wanted}, and a device hands "
            "its records over in one",
            cure="give both sets in the type of the sites' raw records",
        )


def _unlike(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> InvalidInput:
    return InvalidInput(
        f"the transfer set '{name}' holds records of shape {shape}",
        why=f"those of the test part have the shape {wanted}",
        cure='name a transfer set that fits in [edge], or write student = "none"',
    )
