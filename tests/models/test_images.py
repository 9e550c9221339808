"""Raw pixels to what a pre-trained net expects; segmenters that answer per pixel."""

from typing import Any

import pytest
import torch

from collegium.core.plan_model import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.models.images import ImagePreprocess
from collegium.privacy import readiness


def segmenter(name: str, **changes: Any) -> ModelRef:
    values: dict[str, Any] = {
        "name": f"segmentation:{name}",
        "task": "segmentation",
        "classes": ("other", "lesion"),
        "image": (33, 36, 1),
    }
    return ModelRef(**(values | changes))


def test_pixels_are_scaled_and_normalised() -> None:
    layer = ImagePreprocess(None, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    x = torch.tensor([[[[255.0, 0.0, 51.0]]]])
    assert layer(x).flatten().tolist() == pytest.approx([1.0, -1.0, 0.2])


def test_grey_becomes_three_equal_channels_and_images_grow() -> None:
    layer = ImagePreprocess((8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    found = layer(torch.full((2, 4, 4, 1), 255.0))
    assert found.shape == (2, 3, 8, 8) and torch.equal(found, torch.ones_like(found))


def test_small_images_grow_to_the_least_side_and_the_option_wins() -> None:
    values: dict[str, Any] = {
        "name": "torchvision:squeezenet1_1",
        "task": "classification",
        "classes": ("a", "b"),
    }
    x = torch.rand(1, 28, 28, 1) * 255
    for options, side in (({}, 32), ({"side": 40.0}, 40)):
        asked = ModelRef(**values, image=(28, 28, 1), options={"random": 1.0} | options)
        model: Any = registry.build(asked)
        assert model.preprocess(x).shape == (1, 3, side, side)
    wide: Any = registry.build(ModelRef(**values, image=(40, 64, 3), options={"random": 1.0}))
    assert wide.preprocess(torch.rand(1, 40, 64, 3)).shape == (1, 3, 40, 64)


@pytest.mark.parametrize("depth", [1.0, 3.0])
def test_a_unet_answers_per_pixel_of_odd_images(depth: float) -> None:
    asked = segmenter("unet", options={"width": 4.0, "depth": depth})
    model = registry.build(asked)
    with torch.no_grad():
        assert model(torch.rand(2, 33, 36, 1) * 255).shape == (2, 2, 33, 36)
    assert registry.total_parameters(asked) == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_torchvisions_segmenters_train_record_by_record(name: str) -> None:
    torch.set_num_threads(1)
    asked = segmenter(name, options={"random": 1.0})
    model = registry.build(asked)
    x = torch.rand(2, 33, 36, 1) * 255
    with torch.no_grad():
        assert model(x).shape == (2, 2, 33, 36)
    assert readiness.check(model, list(select_trainable(model, "head")), example=x) == []


def test_lraspps_one_head_is_the_sum_of_its_two() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    from collegium.models.segmentation import Segmenter

    torch.manual_seed(0)
    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2).eval()
    low, high = net.classifier.low_classifier, net.classifier.high_classifier
    body = Segmenter(net).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = net.classifier(net.backbone(x))
        weight = torch.cat([low.weight, high.weight], dim=1)
        found = torch.nn.functional.conv2d(body(x), weight, low.bias + high.bias)
    torch.testing.assert_close(found, expected)
