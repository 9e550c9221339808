"""Losses per record and metrics, against values worked by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from collegium.core.errors import InvalidInput, NotBuiltYet
from collegium.models.tasks import calibration_error, task


def metrics(logits: list[list[float]], labels: list[int]) -> dict[str, float]:
    return task("classification").metrics(np.array(logits, dtype=np.float32), np.array(labels))


def test_the_loss_is_one_number_per_record() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    loss = task("classification").loss(logits, torch.tensor([1, 0]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log(4 / 3)])


def test_metrics_of_three_classes() -> None:
    # predicted 0, 0, 1, 2; true 0, 0, 0, 2: recall 2/3 of class 0, 1 of class 2, mean 5/6
    found = metrics([[3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], [0, 0, 0, 2])
    assert found["accuracy"] == 0.75
    assert found["macro_accuracy"] == pytest.approx(5 / 6)
    assert found["majority"] == 0.75
    assert "auc" not in found


def test_metrics_of_two_classes() -> None:
    # scores .1 .4 .35 .8 with labels 0 0 1 1: 3 of 4 pairs in order, precision 1 and 2/3
    scores = [0.1, 0.4, 0.35, 0.8]
    found = metrics([[0.0, score] for score in scores], [0, 0, 1, 1])
    assert found["auc"] == pytest.approx(0.75)
    assert found["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["accuracy"] == 0.5


def test_a_shift_of_the_logits_leaves_the_auc_alone() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    shifted = logits + np.array([0.0, 3.0])
    measure = task("classification").metrics
    assert measure(shifted, labels)["auc"] == pytest.approx(measure(logits, labels)["auc"])


@pytest.mark.parametrize("classes", [2, 5])
def test_a_site_with_one_class_survives_without_warnings(classes: int) -> None:
    logits: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[[0, 1, 1]]
    found = task("classification").metrics(logits, np.array([1, 1, 1]))
    assert found["accuracy"] == found["macro_accuracy"] == pytest.approx(2 / 3)
    assert found["majority"] == 1.0
    assert "auc" not in found and "average_precision" not in found


def test_no_records_have_no_metrics() -> None:
    assert task("classification").metrics(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == {}


def test_calibration_error_by_hand() -> None:
    # confidences .95 (right), .95 (wrong), .65 (right), .65 (right):
    # gaps |.5 - .95| and |1 - .65|, each half of the records
    top = np.array([0.95, 0.95, 0.65, 0.65])
    probabilities = np.stack([top, 1 - top], axis=1)
    assert calibration_error(probabilities, np.array([0, 1, 0, 0])) == pytest.approx(0.4)


def test_a_sure_and_right_model_is_calibrated() -> None:
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_later_and_unknown_tasks() -> None:
    with pytest.raises(NotBuiltYet):
        task("survival")
    with pytest.raises(InvalidInput):
        task("classify")
