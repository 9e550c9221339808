"""The whole stage on the real open model: what is in the bundle, and what is refused."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from collegium.core.errors import InvalidInput, NotBuiltYet, OutputExists, Refused
from collegium.core.plan import EdgeConfig, ModelRef, Plan, Rounds, SiteRef
from collegium.core.plan_edge import Distillation
from collegium.core.signing import generate_key
from collegium.data.glyphs import glyph_set
from collegium.data.public import PublicSet
from collegium.edge import stage, stage_work
from collegium.edge.apart import verify_apart
from collegium.edge.distill import Distilled
from collegium.edge.stage import make_bundle, skipped
from collegium.models import registry


def arguments(plan: Plan, transfer: PublicSet, test: PublicSet, out: Path) -> dict[str, Any]:
    return {
        "plan": plan,
        "transfer": transfer,
        "test": test,
        "statement": stage.Statement(privacy={}, lineage={}, global_bytes=434_992, simulated=False),
        "edition": stage.Edition(keys=[generate_key()]),
        "out": out,
        "seed": 0,
    }


def read(made: Any, name: str) -> dict[str, Any]:
    return json.loads((made.folder / name).read_bytes())


def test_result_agrees_with_the_bundle(made: Any) -> None:
    result, parity = made.result, read(made, "parity.json")
    assert result.verified and result.reason == ""
    assert result.recipe.startswith("int8-static") and result.student == "cnn:tiny"
    assert result.size_bytes == (made.folder / "model.onnx").stat().st_size
    assert result.size_ratio == pytest.approx(434_992 / result.size_bytes, abs=1e-3)
    assert result.size_ratio >= 10
    names = [row["recipe"] for row in result.candidates]
    assert names[:2] == ["fp32", "int8-static"] and len(set(names)) == len(names)
    assert parity["candidates"] == json.loads(json.dumps(result.candidates))
    assert parity["chosen"] == result.recipe and "smallest" in parity["rule"]
    assert list(dict.fromkeys(made.heard)) == [
        "distil",
        "export",
        "quantize",
        "parity",
        "sign",
        "verify",
    ]


def test_every_edge_input_is_named_with_its_origin(made: Any, glyphs: PublicSet) -> None:
    privacy = read(made, "privacy.json")
    assert privacy["statement"] == {"epsilon": 3.0} and privacy["simulated"] is True
    assert set(privacy["edge_inputs"]) == {"transfer", "calibration", "parity", "selftest"}
    for use in privacy["edge_inputs"].values():
        assert use["origin"] == "synthetic" and use["sha256"].startswith("sha256:")
    assert privacy["edge_inputs"]["transfer"]["sha256"] == glyphs.digest
    assert privacy["edge_inputs"]["parity"]["records"] == 200
    assert read(made, "parity.json")["sets"] == privacy["edge_inputs"]


def test_selftest_holds_transfer_records_only(made: Any, glyphs: PublicSet) -> None:
    vectors = np.load(io.BytesIO((made.folder / "selftest.npz").read_bytes()))
    np.testing.assert_array_equal(vectors["x"], glyphs.x[512:544])
    np.testing.assert_array_equal(vectors["logits"].argmax(1), vectors["labels"])


def test_papers(made: Any) -> None:
    bill = read(made, "sbom.cdx.json")
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    names = {component["name"] for component in bill["components"]}
    assert {"collegium:glyph-cnn", "onnxruntime"} <= names
    card = (made.folder / "card.md").read_text()
    assert "no privacy guarantee" in card and "int8-static" in card
    assert read(made, "labels.json") == {"classes": list("0123456789")}


def test_no_path_of_this_machine_travels(made: Any) -> None:
    words = [str(Path.home()), str(made.folder.parent), str(Path(stage.__file__).parent)]
    for path in made.folder.iterdir():
        content = path.read_bytes()
        assert not [word for word in words if len(word) > 2 and word.encode() in content]


def test_a_failed_gate_is_a_result_without_a_bundle(
    teacher: nn.Module,
    glyphs: PublicSet,
    plan_with: Callable[..., Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An untrained student agrees by chance only."""
    untrained = Distilled(loss=0.0, steps=0, kept_step=0)
    monkeypatch.setattr(stage_work, "distil", lambda *_, **__: untrained)
    out = tmp_path / "bundle"
    found = make_bundle(teacher, **arguments(plan_with(), glyphs, glyph_set(64, seed=5), out))
    assert not found.verified and found.recipe == "none" and found.bundle_sha256 == ""
    assert "agrees with the global model" in found.reason
    assert len(found.candidates) >= 2 and not any(c["verdict"]["ok"] for c in found.candidates)
    assert not list(tmp_path.iterdir())


def test_private_origin_is_refused(
    teacher: nn.Module, glyphs: PublicSet, plan_with: Callable[..., Plan], tmp_path: Path
) -> None:
    test = glyph_set(20, seed=5)
    for spoilt in ("transfer", "test"):
        private = PublicSet(name="records", origin="public", x=glyphs.x, y=glyphs.y)
        object.__setattr__(private, "origin", "private")
        given = arguments(plan_with(), glyphs, test, tmp_path / "b") | {spoilt: private}
        with pytest.raises(Refused, match="private"):
            make_bundle(teacher, **given)
    assert not list(tmp_path.iterdir())


def test_too_little_data_and_foreign_folders(
    teacher: nn.Module, glyphs: PublicSet, plan_with: Callable[..., Plan], tmp_path: Path
) -> None:
    few = PublicSet(name="few", origin="synthetic", x=glyphs.x[:90])
    with pytest.raises(InvalidInput, match="90 transfer"):
        make_bundle(teacher, **arguments(plan_with(), few, glyphs, tmp_path / "b"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists):
        make_bundle(teacher, **arguments(plan_with(), glyphs, glyphs, tmp_path))


def test_tabular_model_ships_itself_in_fp32(tmp_path: Path) -> None:
    """Rows have no student and no int8: the scaled linear model travels as it is."""
    bounds = {"age": (0.0, 100.0), "pressure": (60.0, 220.0), "glucose": (40.0, 400.0)}
    plan = Plan(
        consortium="clinics",
        sites=tuple(SiteRef(name=name, public_records=100) for name in ("a", "b")),
        model=ModelRef(
            name="tabular:linear", task="classification", classes=("no", "yes"), bounds=bounds
        ),
        rounds=Rounds(count=1),
    )
    model = registry.build(plan.model)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [-1.0, 2.0, -0.5]]))
    low, high = np.array(list(bounds.values())).T
    rows = np.random.default_rng(0).uniform(low, high, (700, 3)).astype(np.float32)
    public = PublicSet(name="rows", origin="synthetic", x=rows)
    found = make_bundle(model, **arguments(plan, public, public, tmp_path / "bundle"))
    assert found.verified, found.reason
    assert (found.recipe, found.student, found.agreement) == ("fp32", "same", 1.0)
    assert found.accuracy is None


def test_verify_apart_reports_what_went_wrong(made: Any, bundle: Path) -> None:
    public, x = made.key.public_key(), made.test.x[:3]
    wrong = verify_apart(bundle, public, x, ["9", "9", "9"], simulated=True)
    assert wrong == "the device process answered differently"
    refused = verify_apart(bundle, public, x, [], simulated=False)
    assert "77" in refused and "no privacy guarantee" in refused


def clinics(task: str = "classification", **edge: Any) -> Plan:
    """Tables with a missing number, and a category."""
    return Plan(
        consortium="clinics",
        sites=tuple(SiteRef(name=name, public_records=100) for name in ("a", "b")),
        model=ModelRef(
            name="tabular:linear",
            task=task,
            classes=("no", "yes"),
            bounds={"age": (0.0, 100.0)},
            categories={"kind": ("x", "y", "z")},
            missing="flag",
            unknown="other",
        ),
        rounds=Rounds(count=1),
        edge=replace(EdgeConfig(), **edge),
    )


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (clinics(student="none"), "asks for no small model"),
        (clinics("multilabel"), "builds classifiers, and this plan's task is multilabel"),
    ],
)
def test_a_plan_without_an_edge_stage_says_why(plan: Plan, why: str, tmp_path: Path) -> None:
    assert why in skipped(plan)
    rows = PublicSet(name="rows", origin="synthetic", x=np.zeros((600, 2), dtype=np.float32))
    with pytest.raises(NotBuiltYet, match=why):
        make_bundle(nn.Identity(), **arguments(plan, rows, rows, tmp_path / "b"))
    assert not list(tmp_path.iterdir())


def test_a_transfer_set_of_other_records_is_refused(
    glyphs: PublicSet, plan_with: Callable[..., Plan], tmp_path: Path
) -> None:
    assert skipped(plan_with()) == ""
    images = PublicSet(
        name="images",
        origin="public",
        x=np.zeros((4, 28, 28, 1), dtype=np.uint8),
        y=np.zeros(4, int),
    )
    with pytest.raises(InvalidInput, match=r"\(8, 8\).*\(28, 28, 1\)"):
        make_bundle(nn.Identity(), **arguments(plan_with(), glyphs, images, tmp_path / "b"))
    teacher = registry.build(plan_with().model)
    drawn = plan_with(transfer="collegium:glyphs")
    stage.require_ready(drawn, teacher, glyphs, None)
    other = PublicSet(name="larger", origin="public", x=np.zeros((9, 28, 28), np.float32))
    with pytest.raises(InvalidInput, match=r"\(8, 8\).*\(28, 28\)"):
        stage.require_ready(drawn, teacher, other, None)


@pytest.mark.parametrize(
    ("edge", "why"),
    [
        ({"recipe": "int8-dynamic"}, "convol"),
        ({"student": "layers:2"}, "layers"),
        ({"student": "cnn:base"}, "smaller than its teacher"),
        ({"student": "size:1000"}, "1000"),
        ({"student": "cifar:resnet999"}, "resnet999"),
        ({"student": "cifar:resnet20"}, "records|parameters|read"),
    ],
)
def test_what_could_not_be_done_is_said_before_the_first_round(
    edge: dict[str, Any], why: str, plan_with: Callable[..., Plan], glyphs: PublicSet
) -> None:
    teacher = registry.build(plan_with().model)
    with pytest.raises(InvalidInput, match=why):
        stage.require_ready(plan_with(**edge), teacher, glyphs, None)


def test_a_transfer_set_that_is_too_small_is_said_early(
    plan_with: Callable[..., Plan], glyphs: PublicSet
) -> None:
    teacher = registry.build(plan_with().model)
    few = PublicSet(name="few", origin="public", x=glyphs.x[:50])
    with pytest.raises(InvalidInput, match="50 records"):
        stage.require_ready(plan_with(), teacher, glyphs, few)
    many = replace(plan_with(), distillation=Distillation(batch=60_000))
    with pytest.raises(InvalidInput, match="60000"):
        stage.require_ready(many, teacher, glyphs, None)


def test_a_missing_number_does_not_end_the_stage(tmp_path: Path) -> None:
    """The gate measures all records; the device, which reads complete ones only, is asked those."""
    plan, rng = clinics(), np.random.default_rng(0)
    model = registry.build(plan.model)
    torch.nn.init.normal_(model.get_parameter("head.weight"), std=1.0)

    def rows(count: int) -> np.ndarray:
        return np.stack([rng.uniform(0, 100, count), rng.integers(-1, 3, count)], 1).astype("f4")

    test = rows(50)
    test[:10, 0] = np.nan
    found = make_bundle(
        model,
        **arguments(
            plan,
            PublicSet(name="rows", origin="synthetic", x=rows(600)),
            PublicSet(name="held-out", origin="public", x=test, y=rng.integers(0, 2, 50)),
            tmp_path / "b",
        ),
    )
    assert found.verified, found.reason
    assert found.agreement == 1.0 and found.candidates[0]["n"] == 50


class Pixels(nn.Module):
    """A convolution over colour images of bytes, pixel values 0..255."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = nn.Identity()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = self.preprocess(x).movedim(-1, 1) / 255
        return 50 * self.head(self.body(scaled).flatten(1))


class Words(nn.Module):
    """A mean of embeddings over token numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 6)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 50 * self.head(self.words(x.long()).mean(dim=1))


@pytest.mark.parametrize("kind", ["bytes", "tokens"])
def test_images_of_bytes_and_texts_as_tokens_become_bundles(
    kind: str, plan_with: Callable[..., Plan], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)

    def drawn(count: int) -> np.ndarray:
        if kind == "bytes":
            return rng.integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)
        return rng.integers(0, 100, (count, 5)).astype(np.int32)

    torch.manual_seed(1)
    model = (Pixels() if kind == "bytes" else Words()).eval()
    found = make_bundle(
        model,
        **arguments(
            plan_with(recipe="fp32"),
            PublicSet(name="transfer", origin="synthetic", x=drawn(600)),
            PublicSet(name="test", origin="synthetic", x=drawn(40), y=rng.integers(0, 10, 40)),
            tmp_path / "b",
        ),
    )
    assert found.verified, found.reason
    assert (found.student, found.agreement) == ("same", 1.0)
