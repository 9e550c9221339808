"""Figures of how good answers are, from torchmetrics; undefined ones are left to the caller.

torchmetrics takes seconds to import (it loads torchvision and, where installed, transformers), so
that each function imports it when it is called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating[Any]]
Labels = NDArray[Any]
BINS = 10  # of the calibration error, equal widths


def auc(scores: Floats, labels: Labels) -> float:
    """Return the area under the ROC curve of (n,) scores for (n,) labels 0 and 1, both occurring.

    Ties count half.
    """
    from torchmetrics.functional.classification import binary_auroc

    return float(binary_auroc(_ranks(scores), _whole(labels)))


def average_precision(scores: Floats, labels: Labels) -> float:
    """Return the average precision of (n,) scores for (n,) labels 0 and 1, with some 1."""
    from torchmetrics.functional.classification import binary_average_precision

    return float(binary_average_precision(_ranks(scores), _whole(labels)))


def balanced_accuracy(answers: Labels, labels: Labels, classes: int) -> float:
    """Return the mean recall over the classes that occur among (n,) labels."""
    from torchmetrics.functional.classification import multiclass_recall

    recalls = multiclass_recall(
        _whole(answers), _whole(labels), num_classes=classes, average="none"
    )
    return float(recalls[torch.from_numpy(np.unique(labels).astype(np.int64))].mean())


def calibration_error(chances: Floats, labels: Labels) -> float:
    """Return the expected calibration error of (n, classes) probabilities, in 0..1.

    Guo et al., ICML 2017, equation 3: the mean of |accuracy - confidence| over bins of
    confidence, weighted by their share of the records; ten bins of equal width.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    return float(
        multiclass_calibration_error(
            torch.from_numpy(np.asarray(chances, dtype=np.float64)),
            _whole(labels),
            num_classes=chances.shape[1],
            n_bins=BINS,
        )
    )


def dice_per_class(answers: Labels, masks: Labels, classes: int, ignore: int) -> Floats:
    """Return the Dice score of each class, (classes,): the mean over the images that show it.

    ``answers`` and ``masks`` (n, height, width) class indices; pixels whose mask is ``ignore``
    do not count. An image shows a class where mask or answer holds it; NaN for a class that no
    image shows. Dice 1945; per image, as in medical challenges.
    """
    from torchmetrics.functional.segmentation import dice_score

    hidden = torch.from_numpy(masks == ignore)
    # one class more takes the pixels that do not count, in answer and mask alike
    found = _whole(answers).masked_fill(hidden, classes)
    truth = _whole(masks).masked_fill(hidden, classes)
    scores: list[Tensor] = [
        dice_score(
            found[i : i + 1], truth[i : i + 1], classes + 1, average="none", input_format="index"
        )
        for i in range(len(found))
    ]
    return torch.nanmean(torch.cat(scores), dim=0)[:classes].numpy()


def rmse(answers: Floats, values: Floats) -> float:
    """Return the root of the mean squared error of (n,) answers, in the values' unit."""
    from torchmetrics.functional.regression import mean_squared_error

    return float(mean_squared_error(_real(answers), _real(values), squared=False))


def mae(answers: Floats, values: Floats) -> float:
    """Return the mean absolute error of (n,) answers, in the values' unit."""
    from torchmetrics.functional.regression import mean_absolute_error

    return float(mean_absolute_error(_real(answers), _real(values)))


def r2(answers: Floats, values: Floats) -> float:
    """Return the share of the variance of (n,) values that the answers explain; at most 1."""
    from torchmetrics.functional.regression import r2_score

    return float(r2_score(_real(answers), _real(values)))


def softmax(outputs: Floats) -> NDArray[np.float64]:
    """Return the probabilities (n, classes) of (n, classes) logits."""
    return torch.softmax(_real(outputs), dim=1).numpy()


def _ranks(scores: Floats) -> Tensor:
    """Return the scores' ranks in 0..1, equal ones alike.

    torchmetrics maps scores outside 0..1 through a sigmoid, which makes large ones equal.
    """
    _, places = np.unique(np.asarray(scores), return_inverse=True)
    return torch.from_numpy(places.reshape(-1) / max(1, int(places.max(initial=0))))


def _whole(values: Labels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


def _real(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
