"""Classification: losses per record and metrics, against values worked by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from collegium.core.plan import ModelRef
from collegium.models.task_base import Task
from collegium.models.task_classification import classification, classification_metrics


def of(*weights: float, classes: int = 2) -> Task:
    names = tuple(str(place) for place in range(classes))
    return classification(
        ModelRef(name="plugin:a", task="classification", classes=names, class_weights=weights)
    )


def metrics(logits: list[list[float]], labels: list[int]) -> dict[str, float]:
    return classification_metrics(np.array(logits, dtype=np.float32), np.array(labels))


def test_the_loss_is_one_number_per_record() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    loss = of().loss(logits, torch.tensor([1, 0]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log(4 / 3)])


def test_class_weights_multiply_each_records_own_loss() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]])
    loss = of(1.0, 5.0).loss(logits, torch.tensor([1, 0, 0]))
    assert loss.tolist() == pytest.approx([5 * math.log(2), math.log(4 / 3), math.log(2)])


def test_metrics_of_three_classes() -> None:
    # predicted 0, 0, 1, 2; true 0, 0, 0, 2: recall 2/3 of class 0, 1 of class 2, mean 5/6
    found = metrics([[3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], [0, 0, 0, 2])
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx(5 / 6)
    assert found["majority"] == 0.75
    assert not {"auc", "macro_accuracy", "sensitivity"} & set(found)


def test_three_classes_that_all_occur_have_a_mean_auc() -> None:
    # class 0: .8 above .05 .2: 1; class 1: .55 above .1 .5: 1; class 2: .3 above .1, below .4
    chances = np.array([[0.8, 0.1, 0.1], [0.05, 0.55, 0.4], [0.2, 0.5, 0.3]])
    found = classification_metrics(np.log(chances), np.array([0, 1, 2]))
    assert found["auc"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["average_precision"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_metrics_of_two_classes() -> None:
    # scores .1 .4 .35 .8 with labels 0 0 1 1: 3 of 4 pairs in order, precision 1 and 2/3;
    # all are above 0, so that all are called class 1
    scores = [0.1, 0.4, 0.35, 0.8]
    found = metrics([[0.0, score] for score in scores], [0, 0, 1, 1])
    assert found["auc"] == pytest.approx(0.75)
    assert found["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["accuracy"] == found["balanced_accuracy"] == 0.5
    assert (found["sensitivity"], found["specificity"], found["positive_rate"]) == (1, 0, 1)
    chances = [1 / (1 + math.exp(-score)) for score in scores]
    squares = [(chance - label) ** 2 for chance, label in zip(chances, [0, 0, 1, 1], strict=True)]
    assert found["brier"] == pytest.approx(sum(squares) / 4, rel=1e-5)


def test_a_shift_of_the_logits_leaves_the_auc_alone() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    shifted = logits + np.array([0.0, 3.0])
    before, after = (classification_metrics(each, labels) for each in (logits, shifted))
    assert after["auc"] == pytest.approx(before["auc"])
    assert after["positive_rate"] > before["positive_rate"]


def test_large_logits_are_still_ranked() -> None:
    found = metrics([[0.0, 40.0], [0.0, 50.0], [0.0, 60.0]], [0, 1, 1])
    assert found["auc"] == 1.0


@pytest.mark.parametrize("classes", [2, 5])
def test_a_site_with_one_class_survives_without_warnings(classes: int) -> None:
    logits: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[[0, 1, 1]]
    found = classification_metrics(logits, np.array([1, 1, 1]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["majority"] == 1.0
    assert not {"auc", "average_precision", "specificity"} & set(found)


def test_right_answers_are_those_of_the_accuracy() -> None:
    logits, labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), np.array([0, 0, 0])
    right = of().right
    assert right is not None
    assert right(logits, labels).tolist() == [True, False, True]
