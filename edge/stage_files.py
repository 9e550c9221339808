"""Every file of a bundle but the signature, from what one edge stage found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..models import registry
from ..models.cards import ModelCard
from . import device, papers
from .bundle import json_bytes, npz_bytes
from .choosing import remark
from .inputs_json import extra_files, input_json
from .inputs_wordpiece import wordpiece_of
from .parity import AT_ONCE, Limits, Parity, answers, together
from .parity_report import leakage_quote, parity_report
from .quantize import is_calibrated
from .stage_work import Student, Work, raw
from .timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The candidate that ships, beside all others, and what the papers say of it.

    ``teacher`` holds the global model's figures on the test part; ``comparison`` is against the
    bundle in the field, None without one.
    """

    model: bytes
    row: Parity
    rows: Sequence[Parity]
    student: Student
    limits: Limits
    timings: Mapping[str, Timing]
    teacher: Mapping[str, float]
    version: int
    comparison: Mapping[str, Any] | None = field(default=None)


def form_files(work: Work) -> dict[str, bytes]:
    """Return what says how records are read and answers named: input.json, labels.json, vocab.txt.

    Raises ``NotBuiltYet`` for a tokenizer that a device does not know.
    """
    plan, x = work.plan, work.inputs.parity.x
    wordpiece = (
        wordpiece_of(plan.model) if plan.model.name.startswith("hf:") and work.texts else None
    )
    reads = input_json(plan.model, x.shape[1:], raw(x[:1]).dtype, wordpiece=wordpiece)
    return {
        "input.json": json_bytes(reads),
        "labels.json": json_bytes({"classes": list(plan.model.classes)}),
        **extra_files(wordpiece),
    }


def files_of(work: Work, chosen: Chosen, form: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the bundle's files by name, those of ``form_files`` among them.

    The same arguments give the same bytes.
    """
    shipped = _with_calibration(work, [chosen.row])
    x = raw(work.inputs.selftest.x)
    session, at_once = device.open_session(chosen.model), together(chosen.row.recipe, x, AT_ONCE)
    logits = answers(session, x, at_once)  # as a device asks
    vectors: dict[str, Any] = {"x": x, "logits": logits, "labels": logits.argmax(axis=1)}
    if work.texts:
        vectors["texts"] = np.array(work.texts)
    as_json = {
        "parity.json": _parity_json(_with_calibration(work, chosen.rows), chosen),
        "privacy.json": papers.privacy_statement(
            work.statement.privacy, shipped.inputs, simulated=work.statement.simulated
        ),
        "sbom.cdx.json": _bill(shipped, chosen),
    }
    return {
        "model.onnx": chosen.model,
        "card.md": _card(shipped, chosen).encode(),
        "selftest.npz": npz_bytes(**vectors),
        **form,
        **{name: json_bytes(value) for name, value in as_json.items()},
    }


def _with_calibration(work: Work, rows: Sequence[Parity]) -> Work:
    """Return the work whose calibration set counts as used if it set ranges in one of these."""
    used = any(is_calibrated(row.recipe) for row in rows)
    return replace(work, inputs=replace(work.inputs, calibrated=used))


def _parity_json(work: Work, chosen: Chosen) -> dict[str, Any]:
    edge, student = work.plan.edge, chosen.student
    return parity_report(
        chosen.rows,
        chosen.row,
        chosen.limits,
        wanted=edge.recipe,
        prefer=edge.prefer,
        target=edge.target,
        sets=work.inputs.origins(),
        timings=chosen.timings,
        audit=work.statement.audit,
        teacher=chosen.teacher,
        facts={
            "student": student.kind,
            "parameters": student.parameters,
            "distillation": student.settings,
            "data_free": work.inputs.data_free,
            "field": chosen.comparison,
        },
    )


def _card(work: Work, chosen: Chosen) -> str:
    plan, student = work.plan, chosen.student
    facts = papers.CardFacts(
        inputs=work.inputs,
        privacy=work.statement.privacy,
        teacher=chosen.teacher,
        base=_base(work),
        student=student.kind,
        student_weights=_open_card(student),
        parameters=student.parameters,
        global_bytes=work.statement.global_bytes,
        distillation=student.settings,
        remark=remark(chosen.row, plan.edge.recipe, plan.edge.prefer, plan.edge.target),
        audit=leakage_quote(work.statement.audit),
        version=chosen.version,
        custom=work.statement.custom,
    )
    return papers.card_text(
        plan, chosen.row, chosen.rows, simulated=work.statement.simulated, facts=facts
    )


def _bill(work: Work, chosen: Chosen) -> dict[str, Any]:
    plan, student = work.plan, chosen.student
    material = papers.Material(
        plan=plan,
        base=_base(work),
        student=_open_card(student),
        student_name=student.kind,
        architecture=student.architecture,
        parameters=student.parameters,
        version=chosen.version,
        chosen=chosen.row,
        custom=work.statement.custom,
    )
    return papers.bill_of_materials(
        plan.consortium, chosen.model, work.inputs, work.statement.lineage, material=material
    )


def _open_card(student: Student) -> ModelCard | None:
    """Return the card of the open model that the student is, as it started; None for any other."""
    return None if student.start is None else registry.describe(student.start)


def _base(work: Work) -> ModelCard | None:
    """Return the open model's card with the plan's weights; None where it may be another one."""
    return None if work.statement.custom else registry.describe(work.plan.model)
