"""The whole edge stage: distil, export, quantize, gate, bundle, and verify as a device would."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from torch import nn

from ..core.errors import GateFailed, InvalidInput
from ..core.plan import Plan
from ..core.signing import save_public
from ..data.public import PublicSet
from . import device, papers
from .bundle import Terms, json_bytes, npz_bytes, require_replaceable, write_bundle
from .distill import Distillation, distil
from .export import OPSET, export_onnx
from .parity import RULE, Limits, Parity, choose, measure
from .quantize import quantize, recipes
from .students import SAME, build_student, parameter_count, resolve_student

log = logging.getLogger(__name__)

CALIBRATION, SELFTEST = 512, 32  # records of the transfer set
SELFTEST_MIN_AGREEMENT = 0.95  # other processors round int8 a little differently
BLOCKED = ("torch", "onnx", "onnxscript", "collegium", "flwr", "sklearn", "pandas")

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

    plan: Plan
    teacher: nn.Module
    inputs: papers.Inputs
    seed: int
    progress: Progress = field(default=lambda _name, _share: None)


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
    ``InvalidInput`` for a set or student that does not fit, ``OutputExists``. A failed gate is
    a result with ``verified`` false and a ``reason``.
    """
    require_replaceable(out)
    work = _Work(
        plan=plan,
        teacher=teacher,
        inputs=_inputs(transfer, test),
        seed=seed,
        progress=progress or (lambda _name, _share: None),
    )
    student, kind = _student(work)
    candidates = _candidates(work, student)
    rows = _parity(work, candidates)
    facts = {"student": kind, "parameters": parameter_count(student)}
    try:
        chosen = choose(rows, plan.edge.recipe)
    except GateFailed as error:
        log.warning("no edge candidate passed: %s", error.why)
        best = max(rows, key=lambda row: row.agreement)
        missed = _result(best, rows, global_bytes, facts)
        return replace(missed, recipe="none", reason=error.why)
    model = candidates[chosen.recipe]
    terms = Terms(
        name=plan.consortium,
        version=version,
        created=now or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0),
        simulated=simulated,
        opset=OPSET,
        lineage=lineage,
        gate={"ok": True, "recipe": chosen.recipe, "agreement": chosen.agreement},
        selftest_min_agreement=SELFTEST_MIN_AGREEMENT,
    )
    files = _files(work, model, chosen, rows, facts)
    files["privacy.json"] = json_bytes(
        papers.privacy_statement(privacy, work.inputs, simulated=simulated)
    )
    files["card.md"] = papers.card_text(plan, chosen, rows, simulated=simulated).encode()
    files["sbom.cdx.json"] = json_bytes(
        papers.bill_of_materials(plan.consortium, model, work.inputs, lineage)
    )
    work.progress("sign", 0.0)
    digest = write_bundle(out, files, terms, [key])
    work.progress("verify", 0.0)
    reason = verify_apart(out, key, test.x, _labels(model, test.x, plan), simulated=simulated)
    work.progress("verify", 1.0)
    return replace(
        _result(chosen, rows, global_bytes, facts),
        verified=not reason,
        reason=reason,
        bundle_sha256=digest,
    )


def _inputs(transfer: PublicSet, test: PublicSet) -> papers.Inputs:
    """Name the sets by their use; calibration and self-test are parts of the transfer set."""
    needed = CALIBRATION + SELFTEST
    if len(transfer) < needed or len(test) == 0:
        raise InvalidInput(
            f"{len(transfer)} transfer and {len(test)} test records",
            why=f"the edge stage needs at least {needed} and 1",
            cure="give larger public or synthetic sets",
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
    with torch.no_grad():
        answers = work.teacher.eval()(torch.from_numpy(test.x).float()).argmax(dim=1).numpy()
    limits = Limits(min_agreement=edge.min_agreement, max_accuracy_drop=edge.max_accuracy_drop)
    return measure(candidates, answers, test.x, test.y, limits)


def _files(
    work: _Work, model: bytes, chosen: Parity, rows: list[Parity], facts: dict[str, Any]
) -> dict[str, bytes]:
    """Return the bundle's files but for the papers that state promises."""
    x = work.inputs.selftest.x.astype(np.float32)
    logits = device.infer(device.open_session(model), x)
    edge = work.plan.edge
    parity = {
        "schema": 1,
        "rule": RULE,
        "wanted": edge.recipe,
        "limits": {
            "min_agreement": edge.min_agreement,
            "max_accuracy_drop": edge.max_accuracy_drop,
        },
        "chosen": chosen.recipe,
        "candidates": [row.row() for row in rows],
        "sets": work.inputs.origins(),
        "machine": {"architecture": platform.machine(), "processors": os.cpu_count()},
        "leakage_audit": "not run",
        **facts,
    }
    return {
        "model.onnx": model,
        "labels.json": json_bytes({"classes": list(work.plan.model.classes)}),
        "parity.json": json_bytes(parity),
        "selftest.npz": npz_bytes(x=x, logits=logits, labels=logits.argmax(axis=1)),
    }


def _labels(model: bytes, x: NDArray[np.generic], plan: Plan) -> list[str]:
    answers = device.infer(device.open_session(model), x.astype(np.float32)).argmax(axis=1)
    return [plan.model.classes[index] for index in answers]


def _result(
    row: Parity, rows: list[Parity], global_bytes: int, facts: dict[str, Any]
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


def verify_apart(
    bundle: Path,
    key: Ed25519PrivateKey,
    x: NDArray[np.generic],
    expected: list[str],
    *,
    simulated: bool,
) -> str:
    """Verify and predict in a fresh process that can import neither torch nor Collegium.

    Raw records ``x`` (n, ...) must get the ``expected`` labels. Returns '' or what went wrong.
    """
    script = Path(device.__file__)
    with tempfile.TemporaryDirectory() as folder:
        public, records = Path(folder) / "trusted.pub", Path(folder) / "x.npy"
        save_public(key.public_key(), public)
        np.save(records, x.astype(np.float32))
        words = ["predict", str(bundle), str(records), "--key", str(public), "--json"]
        program = (
            "import runpy, sys\n"
            f"sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"  # None: an import of it fails
            f"sys.argv = {[str(script), *words, *(['--allow-simulated'] if simulated else [])]!r}\n"
            f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-c", program],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    if done.returncode != 0:
        log.error("the device refused the bundle: %s %s", done.stdout, done.stderr)
        return f"the device process ended with {done.returncode}: {_reason(done.stdout)}"
    if json.loads(done.stdout)["labels"] != expected:
        return "the device process answered differently"
    return ""


def _reason(stdout: str) -> str:
    try:
        return str(json.loads(stdout)["reason"])
    except (ValueError, KeyError, TypeError):
        return "no answer"
