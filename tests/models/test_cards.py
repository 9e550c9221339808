"""Cards tell of every model without torch, and what pinned weights were trained on."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import InvalidInput, NotAvailable
from collegium.core.plan_model import ModelRef
from collegium.models import registry
from collegium.models.cards import option_problems
from collegium.models.cards_open import published, tag_trained_on, weights_of

RESNET = ModelRef(
    name="torchvision:resnet18",
    task="classification",
    classes=("a", "b"),
    image=(28, 28, 1),
    weights="sha256:f37072fd" + "0" * 56,
)


def test_the_asset_is_that_of_the_installed_torchvision() -> None:
    from importlib.resources import files

    torchvision = pytest.importorskip("torchvision")
    asset = json.loads((files("collegium.models") / "assets" / "torchvision.json").read_text())
    installed = set(torchvision.models.list_models(module=torchvision.models))
    assert set(asset["classifiers"]) <= installed
    assert len(asset["classifiers"]) >= 80 and len(asset["segmenters"]) == 6
    meta = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta
    assert asset["classifiers"]["resnet18"]["parameters"] == meta["num_params"]


def test_every_published_file_is_pinned_by_eight_digits_at_least() -> None:
    for name in registry.names():
        for weights in weights_of(name):
            assert len(weights.sha256) >= 8 and int(weights.sha256, 16) >= 0
            assert weights.fits("sha256:" + weights.sha256.ljust(64, "0"))


def test_what_it_was_trained_on_follows_the_digest() -> None:
    assert "ImageNet-1K" in registry.describe(RESNET).trained_on
    other = registry.describe(replace(RESNET, weights="sha256:" + "1" * 64))
    assert other.trained_on.startswith("not known") and other.license.startswith("not known")
    random = replace(RESNET, weights=None, options={"random": 1.0})
    assert registry.describe(random).trained_on == "nothing: random weights"
    swag = next(one for one in weights_of("torchvision:vit_b_16") if "SWAG" in one.name)
    assert "Instagram" in swag.trained_on and swag.license == "CC-BY-NC-4.0"
    assert published("torchvision:vit_b_16", f"sha256:{swag.sha256}" + "0" * 56) == swag


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("augreg_in21k_ft_in1k", "ImageNet-21K, then ImageNet-1K"),
        ("laion2b_ft_in12k", "LAION-2B, then ImageNet-12K"),
        ("", "not known"),
        ("fancy", "not known"),
    ],
)
def test_timms_tags_say_the_data_sets(tag: str, words: str) -> None:
    assert words in tag_trained_on(tag)


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:resnet18",
        "segmentation:fcn_resnet50",
        "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "hf:ours/tiny",
        "cifar:resnet56",
        "text:hashed",
    ],
)
def test_cards_need_no_torch(name: str) -> None:
    code = (
        "import sys; from collegium.models import registry as r; "
        f"c = r.card({name!r}); assert c.name == {name!r} and c.trained_on and c.license; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name", ["torchvision:resnet19", "timm:No Such", "segmentation:fcn", "cifar:resnet21", "text:x"]
)
def test_unknown_names_are_told_what_there_is(name: str) -> None:
    with pytest.raises(InvalidInput, match="no open model") as caught:
        registry.card(name)
    assert "did you mean" in caught.value.cure


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("hf:./no/folder", "hf:no/folder"),
        ("hf:/no/folder", "hf:folder"),
        ("hf:~/models/bert", "hf:bert"),
        ("hf:../bert", "hf:bert"),
        ("hf:ours/bert/", "hf:ours/bert"),
        ("hf:C:\\models\\bert", "hf:bert"),
        ("hf:a b/", "hf:FOLDER"),
    ],
)
def test_a_folder_that_is_written_as_a_path_has_its_own_cure(name: str, written: str) -> None:
    with pytest.raises(InvalidInput, match="COLLEGIUM_WEIGHTS") as caught:
        registry.card(name)
    assert f'write "{written}"' in caught.value.cure and "did you mean" not in caught.value.cure
    if written != "hf:FOLDER":
        assert registry.card(written).name == written


def test_options_are_checked_by_name_and_number() -> None:
    asked = ModelRef(
        name="tabular:mlp",
        task="classification",
        classes=("a", "b"),
        bounds={"x": (0.0, 1.0)},
        options={"hiden": 4.0, "layers": 2.5, "hidden": 0.0},
    )
    found = {
        problem.where: problem for problem in option_problems(registry.card(asked.name), asked)
    }
    assert "hidden" in found["[model.options] hiden"].cure
    assert "whole" in found["[model.options] layers"].what
    assert "between" in found["[model.options] hidden"].what
    with pytest.raises(InvalidInput) as caught:
        registry.build(asked)
    assert len(caught.value.problems) == 3


def test_shapes_of_records() -> None:
    table = ModelRef(
        name="tabular:mlp",
        task="classification",
        classes=("a", "b"),
        bounds={"x": (0.0, 1.0)},
        categories={"ward": ("u", "v")},
    )
    assert (registry.input_kind(table), registry.input_shape(table)) == ("table", (2,))
    assert (registry.input_kind(RESNET), registry.input_shape(RESNET)) == ("image", (28, 28, 1))
    hf = ModelRef(name="hf:a/b", task="classification", classes=("a", "b"))
    assert (registry.input_kind(hf), registry.input_shape(hf)) == ("text", (64,))
    glyph = replace(RESNET, name="collegium:glyph-cnn", image=(), weights=None)
    assert registry.input_shape(glyph) == (8, 8)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 28, 28), dtype=np.uint8), "shape"),
        (np.zeros((2, 28, 28, 3), dtype=np.uint8), "shape"),
        (np.full((2, 28, 28, 1), 256.0), "2 of 2"),
        (np.full((2, 28, 28, 1), np.nan), "2 of 2"),
        (np.zeros((2, 28, 28, 1), dtype="U3"), "do not fit"),
    ],
)
def test_records_that_do_not_fit_are_refused(x: np.ndarray[Any, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        registry.encode(RESNET, x)


def test_missing_numbers_are_a_tables_own_affair() -> None:
    table = ModelRef(
        name="tabular:linear", task="classification", classes=("a", "b"), bounds={"x": (0.0, 1.0)}
    )
    x = np.array([[np.nan], [0.5]], dtype=np.float32)
    assert registry.encode(table, x) is x
    with pytest.raises(InvalidInput, match="1 of 2"):
        registry.encode(table, np.array([[np.inf], [0.5]]))


def test_a_plug_in_that_nobody_offers() -> None:
    with pytest.raises(NotAvailable, match="not installed"):
        registry.card("plugin:nobodys")


@pytest.mark.slow
def test_a_head_fits_on_every_classifier_and_segmenter_of_torchvision() -> None:
    import torch

    from collegium.models.building import build_model

    torch.set_num_threads(1)
    large = ("regnet_y_128gf", "regnet_y_32gf", "regnet_x_32gf", "_h_14", "_l_", "vgg", "wide")
    for name in registry.names():
        family = name.partition(":")[0]
        card = registry.card(name)
        skipped = any(part in name for part in large) or card.parameters > 60_000_000
        if family not in ("torchvision", "segmentation") or not card.pinned or skipped:
            continue
        asked = replace(
            RESNET, name=name, task=card.task, options={"random": 1.0}, image=(32, 32, 3)
        )
        head = build_model(asked, weights=False).model.get_submodule("head")
        weight = next(head.parameters())
        assert weight.shape[0] == 2 and weight.shape[1] > 2, name


@pytest.mark.skipif(not find_spec("timm"), reason="timm is not installed")
def test_timm_builds_what_it_knows_and_names_neighbours() -> None:
    import torch

    from collegium.models.adapters import select_trainable
    from collegium.privacy import readiness

    asked = replace(
        RESNET,
        name="timm:vit_tiny_patch16_224",
        weights=None,
        options={"random": 1.0, "side": 32.0},
        trainable="norm",
    )
    model = registry.build(asked)
    x = torch.rand(3, 28, 28, 1) * 255
    assert readiness.check(model, list(select_trainable(model, "norm")), example=x) == []
    with torch.no_grad():
        assert model(x).shape == (3, 2)
    with pytest.raises(InvalidInput, match="has no model"):
        registry.build(replace(asked, name="timm:vit_tiniest"))


@pytest.mark.skipif(not find_spec("timm"), reason="timm is not installed")
def test_timms_pinned_weights_load(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    from collegium.core.digest import file_digest

    monkeypatch.setenv("COLLEGIUM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(4)
    net = timm.create_model("resnet10t.c3_in1k", pretrained=False)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    asked = replace(
        RESNET,
        name="timm:resnet10t.c3_in1k",
        weights=file_digest(tmp_path / "net.safetensors"),
        image=(32, 32, 3),
    )
    model: Any = registry.build(asked)
    x = torch.rand(2, 32, 32, 3) * 255
    with torch.no_grad():
        scaled = model.preprocess(x)
        reference = net.eval().forward_head(net.forward_features(scaled), pre_logits=True)
        torch.testing.assert_close(model.features(x), reference)
    own = registry.open_model(replace(asked, classes=tuple(map(str, range(1000)))))
    assert own is not None and registry.open_model(asked) is None
    with torch.no_grad():
        torch.testing.assert_close(own(x), net(scaled))


def test_the_page_lists_every_card() -> None:
    from pathlib import Path

    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for name in registry.names():
        card = registry.card(name)
        if name.startswith(("torchvision:", "segmentation:")) and card.pinned:
            continue
        assert f"| `{name}` | {', '.join(card.tasks)} | {card.trained_on} |" in page
