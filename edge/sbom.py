"""sbom.cdx.json: a CycloneDX 1.6 bill of the model, what it was made of, and with what."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from ..core.digest import canonical_bytes, sha256_hex
from ..core.plan import Plan
from ..models.cards import UNKNOWN, ModelCard
from .parity_gate import Parity
from .uses import Inputs

LIBRARIES: Mapping[str, str] = MappingProxyType(
    {
        "numpy": "BSD-3-Clause",
        "onnxruntime": "MIT",
        "cryptography": "Apache-2.0 OR BSD-3-Clause",
        "onnx": "Apache-2.0",
        "onnxscript": "MIT",
        "torch": "BSD-3-Clause",
    }
)
"""What made the file, with its licence; a device needs the first three only."""
SPDX = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "MIT", "Unlicense")
"""Licences that a card may name and CycloneDX lists; any other is told by its name."""
SMALLER = 1.05  # a file that is smaller by less is not called smaller
CUSTOM = "a run whose sites, model or strategy were objects that its plan does not describe"
MAIN, BASE, STUDENT = "model:edge", "model:base", "model:student"


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the bill tells beside the model's bytes; nothing that is unknown need be given.

    ``base`` is the open model's card; ``student`` that of the student's open weights where it
    is one; ``student_name``, ``architecture`` and ``parameters`` describe the student,
    ``version`` the bundle; ``custom``: the run was not all the plan's.
    """

    plan: Plan | None = None
    base: ModelCard | None = None
    student: ModelCard | None = None
    student_name: str = ""
    architecture: str = ""
    parameters: int = 0
    version: int = 1
    chosen: Parity | None = None
    custom: bool = False
    limitations: Sequence[str] = field(default_factory=tuple)


def bill_of_materials(
    name: str,
    model: bytes,
    inputs: Inputs,
    lineage: Mapping[str, Any],
    *,
    material: Material | None = None,
) -> dict[str, Any]:
    """Return sbom.cdx.json: model with its card, open models, data and libraries.

    https://cyclonedx.org/docs/1.6/json/ ; the serial number follows from the content.
    """
    told = material or Material()
    data = [_data(use, about) for use, about in inputs.origins().items()]
    models = [_base(told, lineage)]
    if told.student is not None:
        models.append(_open_model(STUDENT, told.student))
    libraries = [_library(each, licence) for each, licence in LIBRARIES.items()]
    parts = [*models, *data, *libraries]
    main = {
        "type": "machine-learning-model",
        "bom-ref": MAIN,
        "name": name,
        "version": str(told.version),
        "description": "A small model for devices, made from a model that a consortium fine-tuned",
        "hashes": [_hash(hashlib.sha256(model).hexdigest())],
        "modelCard": _card(told, inputs),
        "properties": [
            {"name": f"collegium:lineage:{key}", "value": str(value)}
            for key, value in sorted(lineage.items())
            if isinstance(value, str | int)
        ],
    }
    bill: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main},
        "components": parts,
        "dependencies": [
            {"ref": MAIN, "dependsOn": [str(part["bom-ref"]) for part in parts]},
            *({"ref": str(part["bom-ref"])} for part in parts),
        ],
    }
    bill["serialNumber"] = (
        f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, sha256_hex(canonical_bytes(bill)))}"
    )
    return bill


def _card(told: Material, inputs: Inputs) -> dict[str, Any]:
    """Return the modelCard: parameters, figures, considerations."""
    parameters: dict[str, Any] = {
        "approach": {"type": "supervised"},
        "datasets": [{"ref": f"data:{use}"} for use in inputs.origins()],
    }
    users, cases = ["holders of devices to whom the consortium gives its bundle"], list[str]()
    if told.plan is not None:
        parameters["task"] = told.plan.model.task
        shape = inputs.parity.x.shape[1:]
        parameters["inputs"] = [{"format": f"raw records: {inputs.parity.x.dtype} {list(shape)}"}]
        parameters["outputs"] = [{"format": f"logits of {len(told.plan.model.classes)} classes"}]
        cases = [f"tell apart: {', '.join(told.plan.model.classes)}"]
    if shape_of_it := told.architecture or told.student_name:
        parameters["modelArchitecture"] = shape_of_it
    card: dict[str, Any] = {
        "modelParameters": parameters,
        "considerations": {
            "users": users,
            **({"useCases": cases} if cases else {}),
            "technicalLimitations": list(told.limitations)
            or ["measured on the public records named in parity.json, and on nothing else"],
            "performanceTradeoffs": [_tradeoff(told.chosen)],
            "ethicalConsiderations": [
                {
                    "name": "records of the sites could be told from the model",
                    "mitigationStrategy": "see privacy.json for what is promised, and to whom",
                }
            ],
        },
    }
    if told.chosen is not None:
        card["quantitativeAnalysis"] = {"performanceMetrics": _metrics(told.chosen)}
    if told.parameters:
        card["properties"] = [{"name": "collegium:parameters", "value": str(told.parameters)}]
    return card


def _tradeoff(row: Parity | None) -> str:
    ratio = row.size_ratio_global if row else None
    if ratio is None:
        return "what was lost beside the global model is in parity.json"
    size = f"{ratio:.1f} times smaller than" if ratio >= SMALLER else "about as large as"
    return f"{size} the global model's file; what was lost beside it is in parity.json"


def _metrics(row: Parity) -> list[dict[str, Any]]:
    """Return the shipped candidate's figures; CycloneDX writes numbers as texts."""
    figures = (
        ("accuracy", row.accuracy, None),
        ("accuracy minus the global model's", row.metric_delta, row.metric_delta_ci),
        ("auc", row.auc, None),
        ("auc minus the global model's", row.auc_delta, row.auc_delta_ci),
        ("agreement with the global model", row.agreement, None),
        ("calibration error", row.calibration_error, None),
    )
    found: list[dict[str, Any]] = []
    for kind, value, interval in figures:
        if value is None:
            continue
        metric: dict[str, Any] = {"type": kind, "value": f"{value:.6g}"}
        if interval is not None:
            low, high = (f"{end:.6g}" for end in interval)
            metric["confidenceInterval"] = {"lowerBound": low, "upperBound": high}
        found.append(metric)
    for each in row.per_class:
        if each["recall"] is not None:
            metric = {"type": "recall", "value": f"{each['recall']:.6g}", "slice": each["class"]}
            found.append(metric)
    return found


def _base(told: Material, lineage: Mapping[str, Any]) -> dict[str, Any]:
    if told.base is not None:
        return _open_model(BASE, told.base)
    base = {"type": "machine-learning-model", "bom-ref": BASE}
    if told.custom:
        return base | {"name": "custom", "description": CUSTOM}
    return base | {"name": str(lineage.get("model", "unknown"))}


def _open_model(reference: str, card: ModelCard) -> dict[str, Any]:
    """Return an open model: licence, digest of its weights, what it was trained on."""
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": card.name,
        "description": f"{card.summary}; trained on {card.trained_on}",
        "licenses": [_licence(card.license)],
    }
    if card.weights:
        component["hashes"] = [_hash(card.weights)]
    if card.source.startswith("https://"):
        component["externalReferences"] = [{"type": "distribution", "url": card.source}]
    return component


def _data(use: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return one set: what it was used for, and that its origin lets everyone see it.

    No custodian is named: nobody told whose a public set is.
    """
    return {
        "type": "data",
        "bom-ref": f"data:{use}",
        "name": str(about["name"]),
        "hashes": [_hash(str(about["sha256"]))],
        "data": [
            {
                "type": "dataset",
                "name": str(about["name"]),
                "classification": str(about["origin"]),
                "description": f"used for {use.replace('_', ' ')}; {about['records']} records",
            }
        ],
    }


def _library(name: str, licence: str) -> dict[str, Any]:
    """Return a Python package with the version that is installed here."""
    found = version(name)
    return {
        "type": "library",
        "bom-ref": f"pkg:{name}",
        "name": name,
        "version": found,
        "purl": f"pkg:pypi/{name}@{found.replace('+', '%2B')}",
        "licenses": [_licence(licence)],
    }


def _licence(text: str) -> dict[str, Any]:
    """Return a licence choice: an SPDX id or expression, else a name."""
    if " OR " in text:
        return {"expression": text}
    known = {each.lower(): each for each in SPDX}
    first = text.partition(" (")[0].lower()  # a card may add in brackets whose it is
    if first in known:
        return {"license": {"id": known[first]}}
    return {"license": {"name": text or UNKNOWN}}


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}
