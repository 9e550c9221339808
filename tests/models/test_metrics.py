"""Figures against scikit-learn's, and against values worked by hand."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from collegium.models import metrics

SEEDS = st.integers(0, 2**32 - 1)


def scored(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n,) of any size and labels (n,) of which both occur."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 200))
    labels = np.append(rng.integers(0, 2, size), [0, 1])
    scores = rng.normal(size=size + 2) * rng.choice([1e-6, 1.0, 1e3])
    return (np.round(scores, 0) if ties else scores), labels


@given(SEEDS, st.booleans())
def test_auc_and_average_precision_are_scikit_learns(seed: int, ties: bool) -> None:
    scores, labels = scored(seed, ties=ties)
    assert metrics.auc(scores, labels) == pytest.approx(
        oracle.roc_auc_score(labels, scores), abs=2e-6
    )
    assert metrics.average_precision(scores, labels) == pytest.approx(
        oracle.average_precision_score(labels, scores), abs=2e-6
    )


@given(SEEDS, st.integers(2, 6))
def test_balanced_accuracy_is_the_mean_recall_of_classes_that_occur(
    seed: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    answers, labels = rng.integers(0, classes, 30), rng.integers(0, classes, 30)
    expected = oracle.recall_score(
        labels, answers, labels=np.unique(labels), average="macro", zero_division=0.0
    )
    assert metrics.balanced_accuracy(answers, labels, classes) == pytest.approx(expected, abs=2e-6)


@given(SEEDS)
def test_errors_of_numbers_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, answers = rng.normal(size=(2, 20)) * 50
    assert metrics.mae(answers, values) == pytest.approx(
        oracle.mean_absolute_error(values, answers)
    )
    assert metrics.rmse(answers, values) == pytest.approx(
        oracle.root_mean_squared_error(values, answers)
    )
    assert metrics.r2(answers, values) == pytest.approx(oracle.r2_score(values, answers), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    # confidences .95 (right), .95 (wrong), .65 (right), .65 (right):
    # gaps |.5 - .95| and |1 - .65|, each half of the records
    top = np.array([0.95, 0.95, 0.65, 0.65])
    chances = np.stack([top, 1 - top], axis=1)
    found = metrics.calibration_error(chances, np.array([0, 1, 0, 0]))
    assert found == pytest.approx(0.4, abs=1e-6)


def test_a_sure_and_right_model_is_calibrated() -> None:
    assert metrics.calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_dice_of_each_class_by_hand() -> None:
    # image 0, class 1: 2 common of 3 and 2: 4/5; class 0: 3 common of 3 and 4: 6/7; class 2 in
    # no image. Image 1: the unjudged pixel does not count: class 1: 2/3, class 0: 2/3
    masks = np.array([[[1, 1, 0], [0, 0, 0]], [[1, 0, 255], [0, 255, 255]]])
    answers = np.array([[[1, 1, 1], [0, 0, 0]], [[1, 1, 1], [0, 2, 1]]])
    found = metrics.dice_per_class(answers, masks, 3, 255)
    assert found[:2] == pytest.approx([(6 / 7 + 2 / 3) / 2, (4 / 5 + 2 / 3) / 2])
    assert np.isnan(found[2])


@given(SEEDS)
def test_dice_is_the_f1_score_of_an_images_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers, masks = rng.integers(0, 3, (2, 1, 6, 6))
    both = answers.ravel(), masks.ravel()
    expected = oracle.f1_score(both[1], both[0], labels=[0, 1, 2], average=None, zero_division=0.0)
    found = metrics.dice_per_class(answers, masks, 3, 255)
    shown = [c for c in range(3) if c in both[0] or c in both[1]]
    assert found[shown] == pytest.approx(expected[shown])


def test_importing_tasks_does_not_import_torchmetrics() -> None:
    """It takes seconds, and a run that only checks a plan measures nothing."""
    program = (
        "import sys, collegium.models.evaluate, collegium.models.tasks, collegium.models.metrics\n"
        "from collegium.core.plan import ModelRef\n"
        "ref = ModelRef(name='plugin:a', task='survival', target=(0.0, 1.0))\n"
        "collegium.models.tasks.task(ref)\n"
        "sys.exit('torchmetrics' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_counting_outputs_does_not_import_torch() -> None:
    program = (
        "import sys, collegium.models.tasks\n"
        "from collegium.core.plan import ModelRef\n"
        "ref = ModelRef(name='plugin:a', task='survival', target=(0.0, 1.0))\n"
        "assert collegium.models.tasks.outputs_of(ref) == 3\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
