"""The whole edge stage: distil, export, quantize, gate, bundle, and verify as a device would."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from ..core.errors import GateFailed, InvalidInput, NotBuiltYet
from ..core.plan import Plan
from ..data.public import PublicSet
from ..models.evaluate import finite_outputs, logits, records_at_once
from ..privacy.origin import require_releasable
from . import device, papers
from .apart import verify_apart
from .bundle import Terms, json_bytes, npz_bytes, require_replaceable, write_bundle
from .distill import Distillation, distil
from .export import OPSET, export_onnx
from .parity import RULE, Limits, Parity, answers, choose, measure
from .quantize import quantize, recipes
from .students import NONE, SAME, build_student, parameter_count, resolve_student

log = logging.getLogger(__name__)

CALIBRATION, SELFTEST = 512, 32  # records of the transfer set
SELFTEST_MIN_AGREEMENT = 0.95  # other processors round int8 a little differently

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeResult:
    """What the stage made: the ``edge`` entry of result.json.

    ``verified`` is true when a fresh process without torch and Collegium verified the bundle
    and gave the same answers. When no candidate passed the gate there is no bundle:
    ``verified`` is false, ``reason`` says why, ``recipe`` is 'none', and the figures are those
    of the candidate that agreed most.
    """

    accuracy: float | None
    agreement: float
    recipe: str
    size_bytes: int
    size_ratio: float
    verified: bool
    candidates: list[dict[str, Any]]
    bundle_sha256: str
    reason: str = ""
    student: str = ""
    parameters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What every step of one stage shares."""

    teacher: nn.Module
    plan: Plan
    inputs: papers.Inputs
    privacy: Mapping[str, Any]
    lineage: Mapping[str, Any]
    simulated: bool
    seed: int
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """The candidate that ships, beside all others."""

    model: bytes
    row: Parity
    rows: Sequence[Parity]
    facts: Mapping[str, Any]


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
    privacy: dict[str, Any],
    lineage: dict[str, Any],
    key: Ed25519PrivateKey,
    out: Path,
    global_bytes: int,
    simulated: bool,
    seed: int,
    progress: Progress | None = None,
    version: int = 1,
    now: datetime | None = None,
) -> EdgeResult:
    """Turn the global model into a signed, verified bundle at ``out`` (replaced as one).

    ``teacher`` maps raw records to logits and has a layer ``preprocess``; it is not changed.
    ``transfer`` trains, calibrates and gives the self-test vectors, ``test`` is what parity
    quotes; ``global_bytes`` is the size of the fp32 global safetensors. ``now`` (default:
    today, UTC) starts the year of validity. Raises ``Refused`` for private data,
    ``InvalidInput`` for a set or student that does not fit, ``OutputExists``, and ``NotBuiltYet``
    where ``skipped`` says why, or where no public records are like those of the test part. A
    failed gate is a result with ``verified`` false and a ``reason``: the caller's to raise.
    """
    if reason := skipped(plan):
        raise NotBuiltYet(reason, cure=f'write [edge] student = "{NONE}"')
    require_replaceable(out)
    work = _Work(
        teacher=teacher,
        plan=plan,
        inputs=_inputs(transfer, test),
        privacy=privacy,
        lineage=lineage,
        simulated=simulated,
        seed=seed,
        progress=progress or (lambda _name, _share: None),
    )
    student, kind = _student(work)
    facts = {"student": kind, "parameters": parameter_count(student)}
    candidates = _candidates(work, student)
    rows = _parity(work, candidates)
    try:
        row = choose(rows, plan.edge.recipe)
    except GateFailed as error:
        log.warning("no edge candidate passed: %s", error.why)
        best = max(rows, key=lambda each: each.agreement)
        missed = _result(best, rows, global_bytes, facts)
        return replace(missed, recipe="none", reason=error.why)
    choice = _Choice(model=candidates[row.recipe], row=row, rows=rows, facts=facts)
    terms = _terms(work, choice, version=version, created=now or _today())
    work.progress("sign", 0.0)
    digest = write_bundle(out, _files(work, choice), terms, [key])
    reason = _verify(work, choice, out, key)
    found = _result(row, rows, global_bytes, facts)
    return replace(found, verified=not reason, reason=reason, bundle_sha256=digest)


def _inputs(transfer: PublicSet, test: PublicSet) -> papers.Inputs:
    """Name the sets by their use; calibration and self-test are parts of the transfer set."""
    require_releasable(transfer.origin, "distillation, calibration and self-test")
    require_releasable(test.origin, "the parity gate")
    needed = CALIBRATION + SELFTEST
    if len(transfer) < needed or len(test) == 0:
        raise InvalidInput(
            f"{len(transfer)} transfer and {len(test)} test records",
            why=f"the edge stage needs at least {needed} and 1",
            cure="give larger public or synthetic sets",
        )
    if transfer.x.shape[1:] != test.x.shape[1:]:
        raise NotBuiltYet(
            f"the edge stage has no public records like these: '{transfer.name}' holds "
            f"{transfer.x.shape[1:]}, the test part {test.x.shape[1:]}",
            cure=f'name a transfer set that fits in [edge], or write student = "{NONE}"',
        )
    return papers.Inputs(
        transfer=transfer,
        calibration=_part(transfer, "calibration", 0, CALIBRATION),
        selftest=_part(transfer, "selftest", CALIBRATION, needed),
        parity=test,
    )


def _part(whole: PublicSet, use: str, start: int, stop: int) -> PublicSet:
    return PublicSet(name=f"{whole.name}#{use}", origin=whole.origin, x=whole.x[start:stop])


def _student(work: _Work) -> tuple[nn.Module, str]:
    """Return the trained student (or the teacher itself) and its kind."""
    transfer, plan = work.inputs.transfer, work.plan
    shape = transfer.x.shape[1:]
    kind = resolve_student(plan.edge.student, shape)
    student = build_student(
        kind, work.teacher, shape=shape, classes=len(plan.model.classes), seed=work.seed
    )
    if kind != SAME:
        distil(
            work.teacher,
            student,
            transfer,
            recipe=Distillation(),
            seed=work.seed,
            progress=lambda share: work.progress("distil", share),
        )
    return student, kind


def _candidates(work: _Work, student: nn.Module) -> dict[str, bytes]:
    """Return ONNX bytes by recipe, fp32 first."""
    work.progress("export", 0.0)
    exported = export_onnx(student, work.inputs.selftest.x.astype(np.float32))
    work.progress("quantize", 0.0)
    return {
        recipe: quantize(exported, recipe, work.inputs.calibration)
        for recipe in recipes(exported, work.plan.edge.recipe)
    }


def _parity(work: _Work, candidates: dict[str, bytes]) -> list[Parity]:
    work.progress("parity", 0.0)
    test, edge = work.inputs.parity, work.plan.edge
    labels = finite_outputs(logits(work.teacher, test.x)).argmax(axis=1)
    limits = Limits(min_agreement=edge.min_agreement, max_accuracy_drop=edge.max_accuracy_drop)
    at_once = records_at_once(work.teacher, test.x)
    return measure(candidates, labels, test.x, test.y, limits, at_once=at_once)


def _terms(work: _Work, choice: _Choice, *, version: int, created: datetime) -> Terms:
    return Terms(
        name=work.plan.consortium,
        version=version,
        created=created,
        simulated=work.simulated,
        opset=OPSET,
        lineage=work.lineage,
        gate={"ok": True, "recipe": choice.row.recipe, "agreement": choice.row.agreement},
        selftest_min_agreement=SELFTEST_MIN_AGREEMENT,
    )


def _files(work: _Work, choice: _Choice) -> dict[str, bytes]:
    """Return every file of the bundle but the signature."""
    plan, inputs, simulated = work.plan, work.inputs, work.simulated
    x = inputs.selftest.x.astype(np.float32)
    logits = device.infer(device.open_session(choice.model), x)
    papers_json = {
        "labels.json": {"classes": list(plan.model.classes)},
        "parity.json": _parity_report(work, choice),
        "privacy.json": papers.privacy_statement(work.privacy, inputs, simulated=simulated),
        "sbom.cdx.json": papers.bill_of_materials(
            plan.consortium, choice.model, inputs, work.lineage
        ),
    }
    card = papers.card_text(plan, choice.row, choice.rows, simulated=simulated)
    return {
        "model.onnx": choice.model,
        "card.md": card.encode(),
        "selftest.npz": npz_bytes(x=x, logits=logits, labels=logits.argmax(axis=1)),
        **{name: json_bytes(value) for name, value in papers_json.items()},
    }


def _parity_report(work: _Work, choice: _Choice) -> dict[str, Any]:
    edge = work.plan.edge
    return {
        "schema": 1,
        "rule": RULE,
        "wanted": edge.recipe,
        "chosen": choice.row.recipe,
        "limits": {
            "min_agreement": edge.min_agreement,
            "max_accuracy_drop": edge.max_accuracy_drop,
        },
        "candidates": [row.row() for row in choice.rows],
        "sets": work.inputs.origins(),
        "machine": {"architecture": platform.machine(), "processors": os.cpu_count()},
        "leakage_audit": "not run",
        **choice.facts,
    }


def _verify(work: _Work, choice: _Choice, out: Path, key: Ed25519PrivateKey) -> str:
    """Return '' when a device answers the test part as the file does here, else what went wrong.

    A device reads all its records at once, and complete ones only: of the complete records of the
    test part as many are asked, evenly spread, as fit into memory.
    """
    work.progress("verify", 0.0)
    x = work.inputs.parity.x.astype(np.float32)
    x = x[np.isfinite(x).reshape(len(x), -1).all(axis=1)]
    if len(x) == 0:
        return "no record of the test part is complete, and a device reads complete ones only"
    most = records_at_once(work.teacher, x)
    x = x[np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(np.int64)]
    found = answers(device.open_session(choice.model), x, most).argmax(axis=1)
    labels = [work.plan.model.classes[index] for index in found]
    reason = verify_apart(out, key.public_key(), x, labels, simulated=work.simulated)
    work.progress("verify", 1.0)
    return reason


def _today() -> datetime:
    """Return this day's midnight: a bundle made again on the same day has the same terms."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _result(
    row: Parity, rows: Sequence[Parity], global_bytes: int, facts: Mapping[str, Any]
) -> EdgeResult:
    return EdgeResult(
        accuracy=row.accuracy,
        agreement=row.agreement,
        recipe=row.recipe,
        size_bytes=row.size_bytes,
        size_ratio=round(global_bytes / row.size_bytes, 3),
        verified=False,
        candidates=[each.row() for each in rows],
        bundle_sha256="",
        **facts,
    )
