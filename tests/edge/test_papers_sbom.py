"""The bill of materials by CycloneDX 1.6's own rules, as far as they bear on what is in it.

Keys, required keys and enumerations are those of schema/bom-1.6.schema.json, which allows no
others.
"""

import hashlib
import json
import re
import uuid
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import ACCEPT
from collegium.core.plan import EdgeConfig, ModelRef, Plan, Rounds, SiteRef
from collegium.data.public import PublicSet
from collegium.edge.bundle import json_bytes
from collegium.edge.papers import Inputs, Material, bill_of_materials
from collegium.edge.parity_gate import Parity
from collegium.edge.sbom import LIBRARIES, SPDX
from collegium.models.catalog import card

KEYS = {
    "bom": {"$schema", "bomFormat", "specVersion", "serialNumber", "version", "metadata",
            "components", "dependencies"},
    "component": {"type", "bom-ref", "name", "version", "description", "hashes", "licenses",
                  "purl", "externalReferences", "modelCard", "data", "properties"},
    "modelCard": {"bom-ref", "modelParameters", "quantitativeAnalysis", "considerations",
                  "properties"},
    "modelParameters": {"approach", "task", "architectureFamily", "modelArchitecture", "datasets",
                        "inputs", "outputs"},
    "considerations": {"users", "useCases", "technicalLimitations", "performanceTradeoffs",
                       "ethicalConsiderations", "environmentalConsiderations",
                       "fairnessAssessments"},
    "metric": {"type", "value", "slice", "confidenceInterval"},
    "data": {"bom-ref", "type", "name", "contents", "classification", "sensitiveData", "graphics",
             "description", "governance"},
}  # fmt: skip


def public(name: str) -> PublicSet:
    return PublicSet(name=name, origin="public", x=np.zeros((10, 8, 8), np.float32))


INPUTS = Inputs(
    transfer=public("glyphs"),
    calibration=public("glyphs#calibration"),
    parity=public("test part"),
    selftest=public("glyphs#selftest"),
)
PLAN = Plan(
    consortium="four-hospitals",
    sites=(SiteRef(name="north", public_records=300),),
    model=ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
    rounds=Rounds(count=12),
    edge=EdgeConfig(),
)
ROW = Parity(
    recipe="fp32", n=10, agreement=0.9, accuracy=0.8, metric_delta=-0.1,
    metric_delta_ci=(-0.3, 0.1), auc=None, auc_delta=None, size_bytes=100, cpu_ms=1.0,
    cpu_noise=0.1, latency_ratio=1.0, verdict=ACCEPT,
    per_class=(
        {"class": "0", "n": 5, "teacher_recall": 1.0, "recall": 0.8, "agreement": 0.8},
        {"class": "1", "n": 0, "teacher_recall": None, "recall": None, "agreement": None},
    ),
)  # fmt: skip
FULL = Material(
    plan=PLAN,
    base=card("collegium:glyph-cnn"),
    student=card("cifar:resnet20"),
    student_name="cifar:resnet20",
    parameters=269_722,
    version=7,
    chosen=ROW,
)
LINEAGE = {"model": "collegium:glyph-cnn", "rounds": 2, "ledger_heads": {"north": "ab"}}


def bill(material: Material | None = FULL, model: bytes = b"onnx") -> dict[str, Any]:
    return bill_of_materials("four-hospitals", model, INPUTS, LINEAGE, material=material)


@pytest.mark.parametrize("material", [None, Material(), FULL, replace(FULL, student=None)])
def test_structure(material: Material | None) -> None:
    found = bill(material)
    assert json.loads(json_bytes(found)) == found
    assert set(found) == KEYS["bom"]
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert found["$schema"] == "http://cyclonedx.org/schema/bom-1.6.schema.json"
    assert found["serialNumber"] == f"urn:uuid:{uuid.UUID(found['serialNumber'][9:])}"
    parts = [found["metadata"]["component"], *found["components"]]
    for part in parts:
        check_component(part)
    references = [part["bom-ref"] for part in parts]
    assert len(set(references)) == len(references)
    assert {each["ref"] for each in found["dependencies"]} == set(references)
    assert set(found["dependencies"][0]["dependsOn"]) == set(references[1:])
    datasets = parts[0]["modelCard"]["modelParameters"]["datasets"]
    assert {each["ref"] for each in datasets} == {r for r in references if r.startswith("data:")}


def check_component(part: dict[str, Any]) -> None:
    assert set(part) <= KEYS["component"] and part["name"]
    assert part["type"] in {"machine-learning-model", "data", "library"}
    for each in part.get("hashes", ()):
        assert each["alg"] == "SHA-256" and re.fullmatch(r"[0-9a-f]{64}", each["content"])
    for licence in part.get("licenses", ()):
        check_licence(licence, alone=len(part["licenses"]) == 1)
    for each in part.get("properties", ()):
        assert set(each) == {"name", "value"} and isinstance(each["value"], str)
    for each in part.get("externalReferences", ()):
        assert each["type"] == "distribution" and each["url"].startswith("https://")
    assert ("modelCard" in part) <= (part["type"] == "machine-learning-model")
    assert ("data" in part) == (part["type"] == "data")
    for each in part.get("data", ()):
        assert set(each) <= KEYS["data"] and each["type"] == "dataset"
        assert "governance" not in each, "nobody told whose a public set is"
    if "modelCard" in part:
        check_card(part["modelCard"])


def check_licence(licence: dict[str, Any], *, alone: bool) -> None:
    if "expression" in licence:
        assert alone and set(licence) == {"expression"}
        return
    (told,) = licence["license"].items()
    assert told[0] in {"id", "name"} and told[1]
    assert (told[0] == "id") <= (told[1] in SPDX)


def check_card(told: dict[str, Any]) -> None:
    assert set(told) <= KEYS["modelCard"]
    assert set(told["modelParameters"]) <= KEYS["modelParameters"]
    assert told["modelParameters"]["approach"] == {"type": "supervised"}
    for way in ("inputs", "outputs"):
        for each in told["modelParameters"].get(way, ()):
            assert set(each) == {"format"} and isinstance(each["format"], str)
    assert set(told["considerations"]) <= KEYS["considerations"]
    for each in told["considerations"]["ethicalConsiderations"]:
        assert set(each) == {"name", "mitigationStrategy"}
    for metric in told.get("quantitativeAnalysis", {}).get("performanceMetrics", ()):
        assert set(metric) <= KEYS["metric"]
        interval = metric.get("confidenceInterval", {"lowerBound": "0", "upperBound": "0"})
        assert set(interval) == {"lowerBound", "upperBound"}
        values = [metric["type"], metric["value"], *interval.values(), metric.get("slice", "")]
        assert all(isinstance(value, str) for value in values)


def test_it_names_licences_weights_versions_and_figures() -> None:
    parts = {part["bom-ref"]: part for part in bill()["components"]}
    base, student = parts["model:base"], parts["model:student"]
    assert base["licenses"] == [{"license": {"id": card("collegium:glyph-cnn").license}}]
    assert student["licenses"] == [{"license": {"id": "BSD-2-Clause"}}]
    assert student["hashes"][0]["content"] == str(card("cifar:resnet20").weights)[7:]
    for name in LIBRARIES:
        assert parts[f"pkg:{name}"]["version"] == version(name)
        assert parts[f"pkg:{name}"]["purl"].startswith(f"pkg:pypi/{name}@")
        assert "+" not in parts[f"pkg:{name}"]["purl"]
    assert parts["data:transfer"]["data"][0]["classification"] == "public"
    main = bill()["metadata"]["component"]
    assert main["hashes"][0]["content"] == hashlib.sha256(b"onnx").hexdigest()
    assert main["version"] == "7"
    metrics = main["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    delta = next(each for each in metrics if each["type"].startswith("accuracy minus"))
    assert delta["confidenceInterval"] == {"lowerBound": "-0.3", "upperBound": "0.1"}
    assert [each["slice"] for each in metrics if "slice" in each] == ["0"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("apache-2.0", {"id": "Apache-2.0"}),
        ("MIT (A. Author)", {"id": "MIT"}),
        ("MIT and others", {"name": "MIT and others"}),
        ("not known: see its page", {"name": "not known: see its page"}),
        ("", {"name": "not known"}),
    ],
)
def test_a_licence_has_its_spdx_id_or_its_name(told: str, expected: dict[str, str]) -> None:
    odd = replace(card("collegium:glyph-cnn"), license=told)
    parts = {part["bom-ref"]: part for part in bill(replace(FULL, base=odd))["components"]}
    assert parts["model:base"]["licenses"] == [{"license": expected}]


@pytest.mark.parametrize(
    ("ratio", "words"), [(None, "in parity.json"), (1.02, "about as large"), (18.6, "18.6 times")]
)
def test_smaller_is_said_of_what_is_smaller(ratio: float | None, words: str) -> None:
    told = replace(FULL, chosen=replace(ROW, size_ratio_global=ratio))
    (said,) = bill(told)["metadata"]["component"]["modelCard"]["considerations"][
        "performanceTradeoffs"
    ]
    assert words in said and ("smaller" in said) == (ratio == 18.6)


def test_the_architecture_is_told_and_onnxscript_made_the_file() -> None:
    main = bill(replace(FULL, architecture="two layers"))["metadata"]["component"]
    assert main["modelCard"]["modelParameters"]["modelArchitecture"] == "two layers"
    assert "pkg:onnxscript" in {part["bom-ref"] for part in bill()["components"]}


def test_a_custom_run_names_no_open_model_as_its_base() -> None:
    parts = {
        part["bom-ref"]: part for part in bill(replace(FULL, base=None, custom=True))["components"]
    }
    base = parts["model:base"]
    assert base["name"] == "custom" and "licenses" not in base and "hashes" not in base


def test_same_content_same_bill_and_number() -> None:
    assert json_bytes(bill()) == json_bytes(bill())
    numbers = {bill()["serialNumber"], bill(model=b"other")["serialNumber"]}
    numbers.add(bill(replace(FULL, version=8))["serialNumber"])
    assert len(numbers) == 3
