"""Plans whose model, weights, options, task or data do not fit are told so before anything runs."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidPlan, NotAvailable
from collegium.core.plan import ModelRef, Plan, Privacy, Rounds, Simulation, SiteRef
from collegium.core.plan_file import write_plan
from collegium.core.reading import apply_rules
from collegium.models import registry
from collegium.server import planner
from collegium.server.plan_names import RULES, require_built

PIN = "sha256:f37072fd" + "0" * 56
RESNET = ModelRef(
    name="torchvision:resnet18",
    weights=PIN,
    task="classification",
    classes=("a", "b"),
    image=(28, 28, 1),
)


def plan(model: ModelRef, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "consortium": "four-hospitals",
        "sites": (SiteRef(name="north", public_records=700),),
        "model": model,
        "rounds": Rounds(count=4, deadline_s=90.0),
        "privacy": Privacy(epsilon=3.0, delta=1e-4, sampling_rate=0.3),
    }
    return Plan(**(values | changes))


def problems(model: ModelRef, **changes: Any) -> dict[str, str]:
    return {p.where: p.cure for p in apply_rules(RULES, plan(model, **changes))}


@pytest.mark.parametrize(
    "model",
    [
        RESNET,
        replace(RESNET, weights=None, options={"random": 1.0, "side": 64.0}),
        replace(RESNET, name="segmentation:unet", task="segmentation", weights=None),
        replace(RESNET, name="cifar:resnet20", weights=None, trainable="lora:4"),
        replace(RESNET, name="timm:vit_tiny_patch16_224", trainable="last:2"),
        replace(RESNET, name="hf:google/vit"),
        replace(RESNET, name="hf:ours/bert", image=(), options={"tokens": 32.0}),
        replace(RESNET, name="text:hashed", image=(), weights=None, task="multilabel"),
    ],
)
def test_plans_that_fit(model: ModelRef) -> None:
    assert problems(model) == {}
    require_built(plan(model))


@pytest.mark.parametrize(
    ("model", "where", "cure"),
    [
        (replace(RESNET, name="torchvision:resnet81"), "[model] name", "resnet18"),
        (replace(RESNET, name="hf:./no/folder"), "[model] name", '"hf:no/folder"'),
        (replace(RESNET, weights=None), "[model] weights", "sha256sum"),
        (replace(RESNET, weights=None), "[model] weights", "sha256:f37072fd..."),
        (replace(RESNET, weights=None, hub=True), "[model] weights", "sha256sum"),
        (
            replace(RESNET, name="segmentation:unet", task="segmentation"),
            "[model] weights",
            "remove",
        ),
        (replace(RESNET, options={"sides": 64.0}), "[model.options] sides", '"side"'),
        (replace(RESNET, options={"side": 1e6}), "[model.options] side", "2048"),
        (replace(RESNET, task="segmentation"), "[model] task", "classification"),
        (replace(RESNET, image=()), "[model] image", "height"),
        (replace(RESNET, name="text:hashed", weights=None), "[model] image", "remove"),
        (
            replace(RESNET, name="text:hashed", weights=None, image=(), trainable="lora:4"),
            "[model] trainable",
            '"head"',
        ),
    ],
)
def test_plans_that_do_not(model: ModelRef, where: str, cure: str) -> None:
    found = problems(model)
    assert list(found) == [where] and cure in found[where]


def test_files_fit_every_model_and_named_sets_their_shape() -> None:
    files = Simulation(dataset="files", files="sites")
    assert problems(RESNET, simulation=files) == {}
    digits = Simulation(dataset="sklearn:digits")
    assert set(problems(RESNET, simulation=digits)) == {"[model] classes", "[simulation] dataset"}
    assert (
        "files" in problems(RESNET, simulation=Simulation(dataset="mine"))["[simulation] dataset"]
    )


def test_checking_an_open_model_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(write_plan(plan(RESNET)), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from collegium.server import planner; "
        f"planner.check(Path({str(path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_explaining_counts_what_travels_and_what_is_cured() -> None:
    found = planner.resolve(plan(replace(RESNET, trainable="last:1")))
    # resnet18's last block: two 3 x 3 convolutions of 512 channels; the head: 512 x 2 + 2
    assert found.trainable_parameters == 2 * 9 * 512 * 512 + 1026
    # torchvision says 11,689,512 with a head of 1000 classes (513,000)
    assert found.total_parameters == 11_689_512 - 513_000 + 1026
    assert "norms frozen (20)" in found.cured


def test_what_the_net_itself_does_not_have_is_a_bad_plan() -> None:
    with pytest.raises(InvalidPlan, match="norm") as caught:
        planner.resolve(plan(replace(RESNET, trainable="norm")))
    assert caught.value.exit_code == 65


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Install a package that offers ``plugin:ours`` as a model."""
    info = folder / "ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[collegium.models]\nours = ours_models:model\n")
    (folder / "ours_models.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "ours_models", raising=False)


@pytest.fixture(autouse=True)
def fresh_cards() -> Iterator[None]:
    registry.card.cache_clear()
    yield
    registry.card.cache_clear()


SOURCE = """
from collegium.models.cards_own import card
from dataclasses import replace

class Ours:
    card = replace(card("tabular:mlp"), name="plugin:ours", trained_on="our own public set")

    def build(self, ref):
        from torch import nn
        from collegium.models.heads import Headed, zero_head
        from collegium.models.preprocess import TablePreprocess
        layer = TablePreprocess(ref)
        body = nn.Sequential(nn.Linear(layer.width, 3), nn.BatchNorm1d(3))
        return Headed(layer, body, zero_head(3, len(ref.classes)))

model = Ours()
"""


def test_a_plug_in_is_checked_built_and_cured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch, SOURCE)
    model = ModelRef(
        name="plugin:ours", task="classification", classes=("a", "b"), bounds={"x": (0.0, 1.0)}
    )
    assert problems(model) == {}
    assert "plugin:ours" in registry.names()
    assert registry.describe(model).trained_on == "our own public set"
    found = planner.resolve(plan(replace(model, trainable="all")))
    # 1 x 3 + 3 of the layer, 3 x 2 + 2 of the head; the norm's 6 are frozen
    assert (found.trainable_parameters, found.total_parameters) == (14, 20)
    assert "norms frozen (1)" in found.cured


def test_a_plug_in_that_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, monkeypatch, "model = object()\n")
    with pytest.raises(NotAvailable, match="is no model"):
        registry.card("plugin:ours")
