"""Real open weights: the same answers before and after cure, and head and adapters that fit."""

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.core.plan_model import ModelRef
from collegium.models import registry
from collegium.models.cards_own import CIFAR_CLASSES, CIFAR_WEIGHTS
from collegium.privacy.cure import cure

DATA = Path(
    os.environ.get("COLLEGIUM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
SQUEEZENET = "sha256:f8a36886fdeb9a439ec546dbbab5363d8a30270304e2ad7d6dbd09d967763557"
NEEDS_DATA = pytest.mark.skipif(
    not (DATA / "weights").is_dir(), reason="the folder of real data is not here (COLLEGIUM_DATA)"
)
RESNET20 = ModelRef(
    name="cifar:resnet20", task="classification", classes=CIFAR_CLASSES, image=(32, 32, 3)
)


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("COLLEGIUM_WEIGHTS", str(DATA / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def cifar(count: int) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    from PIL import Image

    with np.load(DATA / "cifar10_jpeg" / "test_10k.npz") as held:
        jpeg, offset, y = held["jpeg"].tobytes(), held["offset"], held["y"]
    picked = np.random.default_rng(0).permutation(len(y))[:count]
    images = [Image.open(io.BytesIO(jpeg[offset[i] : offset[i + 1]])) for i in picked]
    return torch.from_numpy(np.stack([np.array(one) for one in images])).float(), y[picked]


def answers(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(250)])


@NEEDS_DATA
@pytest.mark.slow
def test_cure_keeps_the_accuracy_of_resnet20() -> None:
    model = registry.open_model(RESNET20)
    assert model is not None
    x, y = cifar(2000)
    before = answers(model, x)
    cured = cure(model).model.train()
    assert torch.equal(answers(cured, x), before)
    # notes of the project: .8085 on 2000 of these images
    assert float((before.argmax(1).numpy() == y).mean()) == pytest.approx(0.8085, abs=0.002)


@NEEDS_DATA
@pytest.mark.parametrize("name", list(CIFAR_WEIGHTS))
def test_every_cifar_net_loads_and_answers_rightly(name: str) -> None:
    asked = replace(RESNET20, name=name)
    model = registry.open_model(asked)
    assert model is not None
    assert sum(p.numel() for p in model.parameters()) == CIFAR_WEIGHTS[name][0]
    assert registry.card(name).parameters == registry.total_parameters(asked)
    x, y = cifar(100)
    assert float((answers(model, x).argmax(1).numpy() == y).mean()) > 0.7


@NEEDS_DATA
def test_the_built_net_keeps_the_features_of_the_open_one() -> None:
    x, _ = cifar(20)
    open_net: Any = registry.open_model(RESNET20)
    built: Any = registry.build(replace(RESNET20, classes=("animal", "machine")))
    with torch.no_grad():
        assert torch.equal(built.features(x), open_net.features(x))
    assert registry.open_model(replace(RESNET20, classes=("animal", "machine"))) is None


@NEEDS_DATA
def test_squeezenet_sees_the_temple() -> None:
    from sklearn.datasets import load_sample_image
    from torchvision.models import SqueezeNet1_0_Weights

    image = np.array(load_sample_image("china.jpg"))
    asked = ModelRef(
        name="torchvision:squeezenet1_0",
        weights=SQUEEZENET,
        task="classification",
        classes=tuple(str(number) for number in range(1000)),
        image=(427, 640, 3),
        options={"side": 227},
    )
    model = registry.open_model(asked)
    assert model is not None
    best = int(answers(model, torch.from_numpy(image[None]).float()).argmax())
    assert SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"][best] == "bell cote"
    told = registry.describe(asked)
    assert "ImageNet-1K" in told.trained_on and told.weights == SQUEEZENET
    assert registry.describe(replace(asked, weights="sha256:" + "0" * 64)).trained_on.startswith(
        "not known"
    )
    features: Any = registry.build(replace(asked, classes=("a", "b"), image=(64, 64, 3)))
    assert features.head.in_features == 512


def test_weights_that_are_not_here_are_missing_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLEGIUM_WEIGHTS")
    with pytest.raises(MissingInput, match="COLLEGIUM_WEIGHTS") as caught:
        registry.build(RESNET20)
    assert caught.value.exit_code == 66 and "akamaster" in caught.value.cure


def test_open_families_must_be_pinned_or_random() -> None:
    asked = ModelRef(
        name="torchvision:squeezenet1_1",
        task="classification",
        classes=("a", "b"),
        image=(32, 32, 3),
    )
    for hub in (False, True):
        with pytest.raises(InvalidInput, match="not pinned"):
            registry.build(replace(asked, hub=hub))
    random = replace(asked, options={"random": 1.0})
    assert registry.build(random)
    assert registry.describe(random).trained_on == "nothing: random weights"


@NEEDS_DATA
def test_weights_of_another_net_do_not_load(tmp_path: Path) -> None:
    other = replace(RESNET20, weights=f"sha256:{CIFAR_WEIGHTS['cifar:resnet32'][1]}")
    with pytest.raises(InvalidInput, match="do not fit"):
        registry.build(other)


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    from collegium.models.states import read_state

    (tmp_path / "net.safetensors").write_bytes(b"something else")
    with pytest.raises(Refused, match="was pinned"):
        read_state(tmp_path / "net.safetensors", "sha256:" + "1" * 64)
