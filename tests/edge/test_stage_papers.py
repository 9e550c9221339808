"""What the papers of a bundle say of its start, its sets and its base: what happened, alone."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from collegium.core.errors import ACCEPT, InvalidInput
from collegium.core.plan import EdgeConfig, ModelRef, Plan, Rounds, SiteRef
from collegium.core.plan_edge import Distillation
from collegium.core.signing import generate_key
from collegium.data.public import PublicSet
from collegium.edge import stage
from collegium.edge.export import export_onnx
from collegium.edge.parity_gate import Limits, Parity
from collegium.edge.stage_files import Chosen, files_of
from collegium.edge.stage_work import Work, inputs_of, require_ready, student_of
from collegium.edge.students import built_student
from collegium.models import registry
from collegium.models.cards import NOTHING
from collegium.models.cards_own import CIFAR_CLASSES
from collegium.models.weights import find_weights

LOOSE = {
    "min_agreement": 0.0, "max_accuracy_drop": 1.0, "max_auc_drop": 1.0, "min_fidelity": 0.0,
    "recipe": "fp32",
}  # fmt: skip
SITES = (SiteRef(name="north", public_records=300), SiteRef(name="south", public_records=300))
CIFAR = ModelRef(
    name="cifar:resnet56", task="classification", classes=CIFAR_CLASSES, image=(32, 32, 3),
    options={"random": 1},
)  # fmt: skip
ROWS = ModelRef(
    name="tabular:mlp", task="classification", classes=("a", "b"), options={"hidden": 64},
    bounds={"x": (0.0, 100.0), "y": (-1.0, 1.0)},
)  # fmt: skip


def papers(
    model: ModelRef, x: np.ndarray, out: Path, *, custom: bool = False, **edge: Any
) -> tuple[str, dict[str, Any]]:
    """The card and the JSON papers, of a bundle that is made of these records."""
    plan = Plan(
        consortium="c", sites=SITES, model=model, rounds=Rounds(count=2),
        edge=EdgeConfig(**{**LOOSE, **edge}),
    )  # fmt: skip
    if plan.edge.student != "same":
        plan = replace(plan, distillation=Distillation(steps=2, batch=8, mixup=0.0, noise=0.0))
    torch.manual_seed(0)
    teacher = registry.build(model)
    torch.nn.init.normal_(teacher.get_parameter("head.weight"))
    found = stage.make_bundle(
        teacher,
        plan=plan,
        transfer=PublicSet(name="synthetic:bounds", origin="synthetic", x=x),
        test=PublicSet(name="test", origin="public", x=x[:20], y=np.arange(20) % 2),
        statement=stage.Statement(
            privacy={}, lineage={}, global_bytes=10_000, simulated=True, custom=custom
        ),
        edition=stage.Edition(keys=[generate_key()]),
        out=out,
        seed=0,
    )
    assert found.verified, found.reason
    names = ("parity.json", "privacy.json", "sbom.cdx.json")
    return (out / "card.md").read_text(), {
        name: json.loads((out / name).read_text()) for name in names
    }


def parts(bill: dict[str, Any]) -> dict[str, Any]:
    return {part["bom-ref"]: part for part in bill["components"]}


def papers_of(model: ModelRef, x: np.ndarray, student: str) -> dict[str, bytes]:
    """The files of a student of one step; a linear layer stands in for its own graph."""
    plan = Plan(
        consortium="c", sites=SITES, model=model, rounds=Rounds(count=2),
        edge=EdgeConfig(**{**LOOSE, "student": student}),
        distillation=Distillation(steps=1, batch=8, mixup=0.0, noise=0.0),
    )  # fmt: skip
    own = PublicSet(name="own", origin="public", x=x)
    inputs, _ = inputs_of(plan, own, own)
    work = Work(
        teacher=registry.build(model), plan=plan, transfer=own, inputs=inputs, seed=0,
        statement=stage.Statement(privacy={}, lineage={}, global_bytes=1, simulated=True),
        progress=lambda _name, _share: None,
    )  # fmt: skip
    graph = export_onnx(nn.Sequential(nn.Flatten(), nn.Linear(x[0].size, 10)), x[:2])
    limits = Limits(min_agreement=0.0, max_accuracy_drop=1.0)
    row = Parity(
        recipe="fp32", n=9, agreement=1.0, accuracy=None, metric_delta=None, size_bytes=1,
        cpu_ms=1.0, cpu_noise=0.0, latency_ratio=1.0, verdict=ACCEPT,
    )  # fmt: skip
    chosen = Chosen(
        model=graph, row=row, rows=[row], student=student_of(work), limits=limits, timings={},
        teacher={}, version=1,
    )  # fmt: skip
    return files_of(work, chosen, {})


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which no open weights lie."""
    for name in ("COLLEGIUM_WEIGHTS", "COLLEGIUM_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_random_weights_are_not_called_open_ones(no_weights: None) -> None:
    """Neither the global model's, which the plan wants random, nor those that were not there."""
    del no_weights
    x = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3)).astype(np.uint8)
    files = papers_of(CIFAR, x, "cifar:resnet20")
    card, models = files["card.md"].decode(), parts(json.loads(files["sbom.cdx.json"]))
    assert "started from cifar" not in card and "CIFAR-10's training set" not in card
    assert f"- open model: trained on {NOTHING}" in card
    for reference in ("model:base", "model:student"):
        assert "hashes" not in models[reference] and NOTHING in models[reference]["description"]


def test_weights_that_are_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    monkeypatch.setenv("COLLEGIUM_DATA", os.environ.get("COLLEGIUM_DATA") or str(data))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digest = registry.card("cifar:resnet20").weights
    if digest is None or find_weights(digest) is None:
        pytest.skip("the open weights of cifar:resnet20 are not here")
    start = built_student(
        "cifar:resnet20", registry.build(CIFAR), shape=(32, 32, 3), classes=10, seed=0, model=CIFAR
    ).start
    assert start is not None and start.weights == digest
    assert "CIFAR-10" in registry.describe(start).trained_on


def test_an_exact_copy_was_not_calibrated_and_a_custom_run_has_no_base(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (100, 2)).astype(np.float32)
    card, found = papers(ROWS, x, tmp_path / "b", custom=True, student="same")
    assert "global model: custom" in card and "the open model tabular:mlp" not in card
    assert "| calibration |" not in card
    assert "calibration" in found["privacy.json"]["edge_inputs_unused"]
    assert set(found["parity.json"]["sets"]) == {"selftest", "parity"}
    bill = found["sbom.cdx.json"]
    assert "data:calibration" not in parts(bill) and parts(bill)["model:base"]["name"] == "custom"
    model = bill["metadata"]["component"]["modelCard"]["modelParameters"]
    assert model["modelArchitecture"] == "custom: the global model itself"


def test_rows_within_bounds_are_data_free(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (100, 2)).astype(np.float32)
    card, found = papers(ROWS, x, tmp_path / "b", student="mlp:tiny")
    assert "**Data-free student:**" in card
    assert found["privacy.json"]["data_free"] is found["parity.json"]["data_free"] is True


def test_both_sets_are_of_one_type() -> None:
    """Else the graph would read bytes, and input.json promise floats."""
    x = np.zeros((100, 32, 32, 3), np.uint8)
    plan = Plan(consortium="c", sites=SITES, model=CIFAR, rounds=Rounds(count=2))
    own = PublicSet(name="own", origin="public", x=x)
    test = PublicSet(name="test", origin="public", x=x.astype(np.float32))
    with pytest.raises(InvalidInput, match=r"uint8.*float32"):
        inputs_of(plan, own, test)
    with pytest.raises(InvalidInput, match=r"uint8.*float32"):
        require_ready(plan, registry.build(CIFAR), test, own)
    exact = replace(test, x=x.astype(np.float64))
    assert inputs_of(plan, test, exact)[0].parity is exact  # a device reads both as float32
