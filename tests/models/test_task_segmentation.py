"""Segmentation: pixels that nobody judged do not count, Dice by hand."""

import math

import numpy as np
import pytest
import torch

from collegium.core.plan import ModelRef
from collegium.models.task_segmentation import (
    most_likely,
    pixel_loss,
    segmentation,
    segmentation_metrics,
    soft_dice,
)

REF = ModelRef(name="plugin:a", task="segmentation", classes=("rest", "lung"))


def sure(answers: list[list[list[int]]], classes: int = 2) -> torch.Tensor:
    """Logits that are sure of these answers (n, height, width)."""
    hot = torch.nn.functional.one_hot(torch.tensor(answers), classes)
    return 100.0 * hot.movedim(-1, 1).float()


def test_the_loss_is_a_mean_over_the_judged_pixels_of_each_image() -> None:
    outputs = torch.zeros(2, 2, 1, 2)
    outputs[0, 1, 0, 0] = math.log(3)  # the chance of class 1 is 3/4 there
    masks = torch.tensor([[[1, 0]], [[255, 255]]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert pixel_loss(outputs, masks).tolist() == pytest.approx([expected, 0.0])
    masks[0, 0, 1] = 255
    assert pixel_loss(outputs, masks).tolist() == pytest.approx([math.log(4 / 3), 0.0])


def test_class_weights_multiply_the_pixels() -> None:
    masks = torch.tensor([[[1, 0]]])
    loss = pixel_loss(torch.zeros(1, 2, 1, 2), masks, weights=torch.tensor([1.0, 3.0]))
    assert loss.tolist() == pytest.approx([2 * math.log(2)])


def test_soft_dice_of_sure_answers() -> None:
    # right: 0. Class 1 answered in 1 of 2 pixels that it has, among 4: (2+1)/(3+1) for it,
    # and (4+1)/(5+1) for class 0
    masks = torch.tensor([[[1, 1, 0, 0]]])
    assert soft_dice(sure([[[1, 1, 0, 0]]]), masks).tolist() == pytest.approx([0.0])
    half = 1 - (3 / 4 + 5 / 6) / 2
    assert soft_dice(sure([[[1, 0, 0, 0]]]), masks).tolist() == pytest.approx([half])
    unjudged = torch.tensor([[[1, 1, 0, 255]]])
    assert soft_dice(sure([[[1, 1, 0, 1]]]), unjudged).tolist() == pytest.approx([0.0])
    asked = segmentation(
        ModelRef(name="a", task="segmentation", classes=("a", "b"), options={"dice": 0.5})
    )
    outputs = torch.zeros(1, 2, 1, 4)
    both = math.log(2) + 0.5 * soft_dice(outputs, masks)[0]
    assert asked.loss(outputs, masks).tolist() == pytest.approx([float(both)])


def test_metrics_of_answers_and_of_outputs_are_the_same() -> None:
    # image 0: lung 2 pixels, found 1 of them and 1 more: 2/4; image 1: neither shows it: left out;
    # image 2: two pixels are not judged, the answer there does not count: 1
    answers = [[[1, 1, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 1, 0]]]
    masks = np.array([[[1, 0, 1, 0]], [[0, 0, 0, 0]], [[1, 255, 255, 0]]])
    outputs = sure(answers)
    kept = most_likely(outputs)
    assert kept.dtype == torch.uint8 and kept.tolist() == answers
    made = segmentation(REF)
    found = made.metrics(outputs.numpy(), masks)
    assert found == made.metrics(kept.numpy(), masks)
    assert found["dice"] == pytest.approx((0.5 + 1) / 2)
    assert found["accuracy"] == pytest.approx(8 / 10)
    assert found["majority"] == pytest.approx(7 / 10)


def test_a_mask_without_a_judged_pixel_or_without_foreground() -> None:
    answers = np.zeros((1, 2, 2), dtype=np.uint8)
    assert segmentation_metrics(answers, np.full((1, 2, 2), 255), classes=2) == {}
    found = segmentation_metrics(answers, np.zeros((1, 2, 2), dtype=np.int64), classes=2)
    assert found == {"accuracy": 1.0, "majority": 1.0}
