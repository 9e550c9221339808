"""The whole edge stage: distil, export, quantize, gate, bundle, and verify as a device would."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..core.errors import GateFailed, NotBuiltYet, Refused
from ..core.plan import Plan
from ..data.public import PublicSet
from ..models.evaluate import finite_outputs, logits, records_at_once
from . import device
from .apart import verify_apart
from .bundle import Terms, require_replaceable, write_bundle
from .edition import Edition
from .export import OPSET
from .papers import Inputs
from .parity import (
    Limits,
    Parity,
    answers,
    choose,
    is_timed,
    limits_of,
    measure,
    time_all,
    together,
)
from .parity_figures import figures_of
from .since import compare, require_not_worse
from .stage_files import Chosen, files_of, form_files
from .stage_work import (
    Statement,
    Student,
    Work,
    candidates_of,
    inputs_of,
    raw,
    require_ready,
    student_of,
)
from .students import NONE, SIZE
from .timing import Timing

__all__ = ["EdgeResult", "Edition", "Statement", "make_bundle", "require_ready", "skipped"]

log = logging.getLogger(__name__)

SELFTEST_MIN_AGREEMENT = 0.95  # other processors round int8 a little differently

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeResult:
    """What the stage made: the ``edge`` entry of result.json.

    ``verified`` is true when a fresh process without torch and Collegium verified the bundle
    and gave the same answers. When no candidate passed the gate there is no bundle:
    ``verified`` is false, ``reason`` says why, ``recipe`` is 'none', and the figures are those
    of the candidate that agreed most. ``timings`` are what was measured here, by the digest of
    the candidate: given to the next ``make_bundle`` they make the same bytes.
    """

    accuracy: float | None
    auc: float | None
    agreement: float
    fidelity: float
    recipe: str
    size_bytes: int
    size_ratio: float
    verified: bool
    candidates: list[dict[str, Any]]
    bundle_sha256: str
    reason: str = ""
    student: str = ""
    parameters: int = 0
    version: int = 0
    simulated: bool = True
    transfer: str = ""
    data_free: bool = False
    teacher: dict[str, float] | None = None
    comparison: dict[str, Any] | None = None
    timings: dict[str, dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """All candidates held against the global model, and how long each takes."""

    student: Student
    candidates: Mapping[str, bytes]
    rows: Sequence[Parity]
    limits: Limits
    teacher: Mapping[str, float]
    timings: Mapping[str, Timing]


def skipped(plan: Plan) -> str:
    """Return why this plan has no edge stage, '' where it has one.

    Only classifiers become small models in this version; [edge] student = "none" asks for none.
    """
    if plan.edge.student == NONE:
        return f'the plan asks for no small model ([edge] student = "{NONE}")'
    if plan.model.task != "classification":
        return f"the edge stage builds classifiers, and this plan's task is {plan.model.task}"
    return ""


def make_bundle(
    teacher: nn.Module,
    *,
    plan: Plan,
    transfer: PublicSet,
    test: PublicSet,
    statement: Statement,
    edition: Edition,
    out: Path,
    seed: int,
    known: Mapping[str, Timing] | None = None,
    progress: Progress | None = None,
) -> EdgeResult:
    """Turn the global model into a signed, verified bundle at ``out`` (replaced as one).

    ``teacher`` maps raw records to logits and has a layer ``preprocess``; it is not changed.
    ``transfer`` trains, calibrates and gives the self-test vectors, ``test`` is what parity
    quotes; ``known`` are earlier timings, which make the same inputs give the same bytes.
    Raises ``Refused`` for private data and for a model worse than the one in the field,
    ``InvalidInput`` for a set or student that does not fit, ``OutputExists``, and
    ``NotBuiltYet`` where ``skipped`` says why. A failed gate is a result with ``verified``
    false and a ``reason``: the caller's to raise.
    """
    if reason := skipped(plan):
        raise NotBuiltYet(reason, cure=f'write [edge] student = "{NONE}"')
    require_replaceable(out)
    inputs, texts = inputs_of(plan, transfer, test)
    work = Work(
        teacher=teacher,
        plan=plan,
        transfer=transfer,
        inputs=inputs,
        statement=statement,
        seed=seed,
        progress=progress or (lambda _name, _share: None),
        texts=texts,
    )
    student = student_of(work)
    work = replace(work, inputs=_used(inputs, student, transfer))
    found = _measured(work, student, known)
    try:
        row = choose(found.rows, plan.edge.recipe, plan.edge.prefer, plan.edge.target)
    except GateFailed as error:
        log.warning("no edge candidate passed: %s", error.why)
        best = max(found.rows, key=lambda each: each.agreement)
        missed = _result(work, found, best)
        return replace(missed, recipe="none", reason=error.why)
    return _shipped(work, found, row, edition, out)


def _used(inputs: Inputs, student: Student, transfer: PublicSet) -> Inputs:
    """Return the sets that were used: an untrained model has learned from none."""
    if student.settings is None:
        return replace(inputs, transfer=None)
    return replace(
        inputs,
        early_stopping=transfer if student.settings["patience"] else None,
        temperature=transfer if "scale" in student.settings else None,
    )


def _measured(work: Work, student: Student, known: Mapping[str, Timing] | None) -> _Measured:
    candidates = candidates_of(work, student.model)
    work.progress("parity", 0.0)
    plan, test = work.plan, work.inputs.parity
    outputs = finite_outputs(logits(work.teacher, test.x))
    x = raw(test.x)
    usable = known is not None and is_timed(candidates, known)
    timings = dict(known) if known is not None and usable else time_all(candidates, x)
    limits = limits_of(plan.edge, max_size_bytes=_largest(plan.edge.student))
    rows = measure(
        candidates,
        outputs,
        x,
        test.y,
        limits,
        at_once=records_at_once(work.teacher, test.x),
        classes=plan.model.classes,
        global_bytes=work.statement.global_bytes,
        known=timings,
    )
    return _Measured(
        student=student,
        candidates=candidates,
        rows=rows,
        limits=limits,
        teacher=figures_of(outputs, test.y),
        timings=timings,
    )


def _largest(student: str) -> int:
    """Return the most bytes that a student by size may have, 0 for any other."""
    family, _, count = student.partition(":")
    return int(count) if family == SIZE else 0


def _shipped(work: Work, found: _Measured, row: Parity, edition: Edition, out: Path) -> EdgeResult:
    """Compare with the field, write, sign and verify the bundle of the chosen candidate."""
    model, form = found.candidates[row.recipe], form_files(work)
    comparison = _against_field(work, row.recipe, model, form, edition)
    if comparison is not None:
        work = replace(work, inputs=replace(work.inputs, field=work.inputs.parity))
    chosen = Chosen(
        model=model,
        row=row,
        rows=found.rows,
        student=found.student,
        limits=found.limits,
        timings=found.timings,
        teacher=found.teacher,
        version=edition.version,
        comparison=comparison,
    )
    work.progress("sign", 0.0)
    terms = _terms(work, chosen, edition)
    digest = write_bundle(out, files_of(work, chosen, form), terms, edition.keys)
    work.progress("verify", 0.0)
    reason = _verify(work, chosen, out, edition)
    work.progress("verify", 1.0)
    return replace(
        _result(work, found, row),
        verified=not reason,
        reason=reason,
        bundle_sha256=digest,
        version=edition.version,
        comparison=comparison,
    )


def _against_field(
    work: Work, recipe: str, model: bytes, form: Mapping[str, bytes], edition: Edition
) -> dict[str, Any] | None:
    """Return how the model stands beside the bundle in the field; raise when it is worse."""
    if edition.field is None:
        return None
    work.progress("compare", 0.0)
    name = edition.field.verified.predicate["name"]
    if name != work.plan.consortium:
        raise Refused(
            f"the bundle in the field is that of '{name}'",
            why=f"this plan's consortium is '{work.plan.consortium}', and devices tell them apart",
            cure="name a bundle of this consortium, or leave --since out",
        )
    test = replace(work.inputs.parity, x=raw(work.inputs.parity.x))
    found = compare(
        model,
        edition.field,
        test,
        files=form,
        tolerance=edition.tolerance,
        recipe=recipe,
        at_once=records_at_once(work.teacher, test.x),
    )
    require_not_worse(found)
    return found.row()


def _terms(work: Work, chosen: Chosen, edition: Edition) -> Terms:
    row = chosen.row
    return Terms(
        name=work.plan.consortium,
        version=edition.version,
        created=edition.day,
        simulated=work.statement.simulated,
        opset=OPSET,
        lineage=work.statement.lineage,
        gate={"ok": True, "recipe": row.recipe, "agreement": row.agreement},
        selftest_min_agreement=SELFTEST_MIN_AGREEMENT,
        valid_days=work.plan.edge.valid_days,
        previous=edition.previous,
    )


def _verify(work: Work, chosen: Chosen, out: Path, edition: Edition) -> str:
    """Return '' when a device answers the test part as the file does here, else what went wrong.

    Records that the device does not read (a missing number where the plan refuses those) are
    left out; of the rest as many are asked, evenly spread, as fit into memory.
    """
    x = raw(work.inputs.parity.x)
    x = x[_readable(work.plan, x)]
    if len(x) == 0:
        return "no record of the test part is one that a device reads"
    most = records_at_once(work.teacher, x)
    x = x[np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(np.int64)]
    at_once = together(chosen.row.recipe, x, most)
    found = answers(device.open_session(chosen.model), x, at_once).argmax(axis=1)
    labels = [work.plan.model.classes[index] for index in found]
    public = edition.keys[0].public_key()
    return verify_apart(out, public, x, labels, simulated=work.statement.simulated)


def _readable(plan: Plan, x: NDArray[Any]) -> NDArray[np.bool_]:
    if x.dtype.kind != "f" or plan.model.missing != "refuse":
        return np.ones(len(x), dtype=bool)
    finite: NDArray[np.bool_] = np.isfinite(x).reshape(len(x), -1)
    return np.all(finite, axis=1)


def _result(work: Work, found: _Measured, row: Parity) -> EdgeResult:
    student, statement = found.student, work.statement
    return EdgeResult(
        accuracy=row.accuracy,
        auc=row.auc,
        agreement=row.agreement,
        fidelity=row.fidelity,
        recipe=row.recipe,
        size_bytes=row.size_bytes,
        size_ratio=round(statement.global_bytes / row.size_bytes, 3),
        verified=False,
        candidates=[each.row() for each in found.rows],
        bundle_sha256="",
        student=student.kind,
        parameters=student.parameters,
        simulated=statement.simulated,
        transfer=work.inputs.transfer.name if work.inputs.transfer else "",
        data_free=work.inputs.data_free,
        teacher=dict(found.teacher),
        timings={digest: timing.row() for digest, timing in found.timings.items()},
    )
