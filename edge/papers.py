"""The texts that travel with a model: card, privacy statement, bill of materials."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ..core.plan import Plan
from ..data.public import PublicSet
from .parity import Parity

LIBRARIES = ("onnxruntime", "onnx", "torch")  # that made the file; a device needs the first only


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The sets that touched the model after training; each may be shown to everyone."""

    transfer: PublicSet
    calibration: PublicSet
    parity: PublicSet
    selftest: PublicSet

    def origins(self) -> dict[str, dict[str, Any]]:
        """Return name, origin, size and digest of each set, by its use."""
        uses = {
            "transfer": self.transfer,
            "calibration": self.calibration,
            "parity": self.parity,
            "selftest": self.selftest,
        }
        return {
            use: {"name": s.name, "origin": s.origin, "records": len(s), "sha256": s.digest}
            for use, s in uses.items()
        }


def privacy_statement(
    privacy: Mapping[str, Any], inputs: Inputs, *, simulated: bool
) -> dict[str, Any]:
    """Return privacy.json: what the consortium states, and what the edge stage added: nothing.

    Post-processing keeps the guarantee as long as no input is private (Dwork & Roth 2014,
    Prop. 2.1); ``PublicSet`` refuses private ones.
    """
    return {
        "schema": 1,
        "simulated": simulated,
        "statement": dict(privacy),
        "edge_inputs": inputs.origins(),
        "edge_cost": "none: post-processing of the released model with data that are not private",
    }


def card_text(plan: Plan, chosen: Parity, rows: Sequence[Parity], *, simulated: bool) -> str:
    """Return card.md: what the model is for, how good it is, what is promised."""
    accuracy = "not measured" if chosen.accuracy is None else f"{chosen.accuracy:.3f}"
    lines = [
        f"# {plan.consortium}: {plan.model.task} on a device",
        "",
        *(["**Simulated: no privacy guarantee.** The noise was seeded.", ""] if simulated else []),
        f"Distilled from a model that {len(plan.sites)} sites fine-tuned together from the open "
        f"model {plan.model.name}, on public data only.",
        "",
        f"- classes: {', '.join(plan.model.classes)}",
        f"- recipe: {chosen.recipe}, {chosen.size_bytes} bytes",
        f"- agreement with the global model: {chosen.agreement:.3f} on {chosen.n} public records",
        f"- accuracy there: {accuracy}",
        "- input: raw records as the sites' readers give them; preprocessing is in the graph",
        "- output: one logit per class",
        "",
        "| candidate | bytes | agreement | CPU ms | gate |",
        "|---|--:|--:|--:|---|",
    ]
    lines += [
        f"| {row.recipe} | {row.size_bytes} | {row.agreement:.3f} | {row.cpu_ms:.3f} | "
        f"{'passed' if row.verdict.ok else row.verdict.code} |"
        for row in rows
    ]
    lines += ["", "What was promised to whom is in privacy.json; all figures are in parity.json."]
    return "\n".join(lines) + "\n"


def bill_of_materials(
    name: str, model: bytes, inputs: Inputs, lineage: Mapping[str, Any]
) -> dict[str, Any]:
    """Return sbom.cdx.json: a CycloneDX 1.6 bill of model, base model, data and libraries.

    https://cyclonedx.org/docs/1.6/json/ ; the serial number follows from the model's bytes.
    """
    digest = hashlib.sha256(model).hexdigest()
    data = [
        {
            "type": "data",
            "bom-ref": f"data:{use}",
            "name": str(about["name"]),
            "hashes": [_hash(str(about["sha256"]))],
            "data": [{"type": "dataset", "classification": str(about["origin"])}],
        }
        for use, about in inputs.origins().items()
    ]
    base = {
        "type": "machine-learning-model",
        "bom-ref": "model:base",
        "name": str(lineage.get("model", "unknown")),
    }
    libraries = [
        {"type": "library", "bom-ref": f"pkg:{n}", "name": n, "version": version(n)}
        for n in LIBRARIES
    ]
    main = {
        "type": "machine-learning-model",
        "bom-ref": "model:edge",
        "name": name,
        "hashes": [_hash(digest)],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {"component": main},
        "components": [base, *data, *libraries],
        "dependencies": [
            {"ref": "model:edge", "dependsOn": ["model:base", *(str(d["bom-ref"]) for d in data)]}
        ],
    }


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}
