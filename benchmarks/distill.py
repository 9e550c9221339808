"""Measure what distillation and int8 cost: a teacher, its student, and the student's int8 file."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from distill_cases import Arrays, Case, cases
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from collegium.core.plan_edge import Distillation
from collegium.data.public import PublicSet
from collegium.edge.device import infer, open_session
from collegium.edge.distill import distil
from collegium.edge.distill_vary import reads_of
from collegium.edge.export import export_onnx
from collegium.edge.quantize import quantize
from collegium.edge.students import build_student, parameter_count
from collegium.models.evaluate import logits

INT8, CALIBRATION = "int8-static", 512
AT_ONCE = 256  # records in one call of a session


def figures(answers: NDArray[Any], test: Arrays, teacher: NDArray[Any]) -> dict[str, float]:
    """Return accuracy, AUC (two classes) and agreement with the teacher of (n, classes) logits."""
    found = {
        "accuracy": float((answers.argmax(1) == test[1]).mean()),
        "agreement": float((answers.argmax(1) == teacher.argmax(1)).mean()),
    }
    if answers.shape[1] == 2:
        found["auc"] = float(roc_auc_score(test[1], answers[:, 1] - answers[:, 0]))
    return found


def measure(case: Case, student_name: str, recipe: Distillation, seed: int) -> dict[str, Any]:
    """Distil, export and quantize once; return the figures of teacher, student and int8."""
    x = case.test[0]
    wanted = logits(case.teacher, x)
    student = build_student(
        student_name,
        case.teacher,
        shape=case.transfer.x.shape[1:],
        classes=wanted.shape[1],
        seed=seed,
        model=case.model,
    )
    started = time.process_time()
    done = distil(
        case.teacher, student, case.transfer, recipe=recipe, seed=seed, reads=reads_of(case.model)
    )
    seconds = time.process_time() - started
    calibration = case.transfer.x[:CALIBRATION]
    exported = export_onnx(student, calibration[:4])
    whole = PublicSet(name="calibration", origin=case.transfer.origin, x=calibration)
    small = quantize(exported, INT8, whole)
    own, int8 = _file_logits(exported, x), _file_logits(small, x)
    teacher_bytes = len(export_onnx(case.teacher, calibration[:4]))
    return {
        "teacher": figures(wanted, case.test, wanted)
        | {"parameters": parameter_count(case.teacher), "bytes": teacher_bytes},
        "student": figures(own, case.test, wanted)
        | {"parameters": parameter_count(student), "bytes": len(exported)},
        "int8": figures(int8, case.test, wanted) | {"bytes": len(small)},
        "fidelity": float((int8.argmax(1) == own.argmax(1)).mean()),
        "times_smaller": teacher_bytes / len(small),
        "cpu_seconds": seconds,
        "steps": done.steps,
    }


def _file_logits(model: bytes, x: NDArray[Any]) -> NDArray[Any]:
    session = open_session(model)
    return np.concatenate([infer(session, x[i : i + AT_ONCE]) for i in range(0, len(x), AT_ONCE)])


def table(name: str, student: str, runs: list[dict[str, Any]]) -> str:
    """Return one case as a Markdown table, a row per seed and model."""
    columns = ("parameters", "bytes", "accuracy", "AUC", "agrees", "int8 = fp32", "CPU s")
    head = f"| {name}: {student} | " + " | ".join(columns) + " |"
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for seed, run in enumerate(runs):
        for key in ("teacher", "student", "int8"):
            row, last = run[key], key == "int8"
            auc = f"{row['auc']:.4f}" if "auc" in row else ""
            cells = [f"{key} {seed}", f"{row.get('parameters', '')}", f"{row['bytes']}"]
            cells += [f"{row['accuracy']:.4f}", auc, f"{row['agreement']:.4f}"]
            cells += [f"{run['fidelity']:.4f}" if last else ""]
            cells += [f"{run['cpu_seconds']:.0f}" if last else ""]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def changed(recipe: Distillation, settings: list[str]) -> Distillation:
    """Return a recipe with single values replaced: ``KEY=VALUE`` as in [distillation]."""
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    given = dict(setting.split("=", 1) for setting in settings)
    return replace(recipe, **{key: kinds[key](value) for key, value in given.items()})


def main() -> None:
    """Measure the chosen cases; print tables or JSON."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["digits"], choices=list(known))
    parser.add_argument("--student", help="another student than the case's own")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--test", type=int, default=0, help="this many test records, 0: all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    for name in chosen.cases:
        case = known[name]()
        if chosen.test:
            case = replace(case, test=(case.test[0][: chosen.test], case.test[1][: chosen.test]))
        recipe, student = changed(case.recipe, chosen.set), chosen.student or case.student
        runs: list[dict[str, Any]] = []
        for seed in range(chosen.seeds):
            runs.append(measure(case, student, recipe, seed))
            print(f"{name}: seed {seed}: {runs[-1]['cpu_seconds']:.0f} CPU s", file=sys.stderr)
        found[name] = runs
        if not chosen.json:
            print(table(name, student, runs) + "\n")
    if chosen.json:
        print(json.dumps({"schema": 1, "cases": found}))


if __name__ == "__main__":
    main()
