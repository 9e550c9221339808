"""Multi-label: every class for itself."""

import math

import numpy as np
import pytest
import torch

from collegium.core.plan import ModelRef
from collegium.models.task_multilabel import multilabel, multilabel_metrics


def of(*weights: float) -> ModelRef:
    classes = ("effusion", "nodule", "mass")
    return ModelRef(name="plugin:a", task="multilabel", classes=classes, class_weights=weights)


def test_the_loss_is_a_mean_over_the_classes() -> None:
    # -log s(0) = log 2; -log s(log 3) = log 4/3; -log(1 - s(log 3)) = log 4
    outputs = torch.tensor([[0.0, math.log(3), math.log(3)]])
    loss = multilabel(of()).loss(outputs, torch.tensor([[1.0, 1.0, 0.0]]))
    expected = [math.log(2), math.log(4 / 3), math.log(4)]
    assert loss.tolist() == pytest.approx([sum(expected) / 3])
    weighted = multilabel(of(1.0, 2.0, 3.0)).loss(outputs, torch.tensor([[1, 1, 0]]))
    by_hand = (expected[0] + 2 * expected[1] + 3 * expected[2]) / 3
    assert weighted.tolist() == pytest.approx([by_hand])


def test_metrics_leave_out_classes_that_only_some_records_could_tell() -> None:
    # class 0: scores 1 -1 2, truth 1 0 1: all right; class 1: 1 1 -1, truth 1 0 1: one of three,
    # recalls 1/2 and 0, pairs 0.5 and 0 of 2; class 2 never occurs and is never called
    outputs = np.array([[1.0, 1.0, -1.0], [-1.0, 1.0, -1.0], [2.0, -1.0, -1.0]])
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 0]], dtype=np.float32)
    found = multilabel_metrics(outputs, labels)
    assert found["accuracy"] == pytest.approx((3 + 1 + 3) / 9)
    assert found["majority"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.25) / 2)
    assert found["auc"] == pytest.approx((1 + 0.25) / 2)


def test_a_record_is_right_when_all_its_classes_are() -> None:
    right = multilabel(of()).right
    assert right is not None
    outputs = np.array([[1.0, -1.0, -1.0], [1.0, -1.0, 1.0]])
    labels = np.array([[1, 0, 0], [1, 0, 0]], dtype=np.float32)
    assert right(outputs, labels).tolist() == [True, False]


def test_a_site_where_no_class_varies_has_an_accuracy_alone() -> None:
    found = multilabel_metrics(np.full((4, 3), -1.0), np.zeros((4, 3), dtype=np.float32))
    assert found == {"accuracy": 1.0, "majority": 1.0}
