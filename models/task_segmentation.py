"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import metrics
from .task_base import Floats, Labels, Task, finite

if TYPE_CHECKING:
    from ..core.plan import ModelRef

IGNORE = 255  # a pixel of a mask that nobody judged
DICE = "dice"  # option of the model: weight of the soft Dice loss, beside 1 for cross entropy


def segmentation(ref: ModelRef) -> Task:
    """Return the task of giving each pixel one of the plan's classes, the first: background."""
    weights = torch.tensor(ref.class_weights) if ref.class_weights else None
    return Task(
        name="segmentation",
        outputs=len(ref.classes),
        loss=partial(pixel_loss, weights=weights, dice=ref.options.get(DICE, 0.0)),
        metrics=partial(segmentation_metrics, classes=len(ref.classes)),
        compact=most_likely,
    )


def pixel_loss(
    outputs: Tensor, masks: Tensor, *, weights: Tensor | None = None, dice: float = 0.0
) -> Tensor:
    """Return each image's mean cross entropy over its judged pixels: (batch,) nats.

    ``outputs`` (batch, classes, height, width) logits, ``masks`` (batch, height, width) int64
    with ``IGNORE`` where nobody judged; an image without a judged pixel has loss 0. ``dice``
    times the soft Dice loss (``soft_dice``) is added.
    """
    factors = None if weights is None else weights.to(outputs)
    losses = functional.cross_entropy(
        outputs, masks, weight=factors, ignore_index=IGNORE, reduction="none"
    )
    judged = (masks != IGNORE).to(outputs)
    mean = losses.sum(dim=(1, 2)) / judged.sum(dim=(1, 2)).clamp(min=1.0)
    return mean + dice * soft_dice(outputs, masks) if dice else mean


def soft_dice(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return 1 less each image's soft Dice score, a mean over its classes: (batch,) in 0..1.

    Milletari et al., 3DV 2016, with sums in the denominator; one pixel is added to both parts, so
    that a class that an image does not show costs nothing where it is not answered.
    """
    judged = (masks != IGNORE).unsqueeze(1).to(outputs)
    chances = torch.softmax(outputs, dim=1) * judged
    classes = torch.arange(outputs.shape[1], device=outputs.device)[:, None, None]
    truth = (masks.unsqueeze(1) == classes).to(outputs)
    common = (chances * truth).sum(dim=(2, 3))
    sizes = chances.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    return 1 - ((2 * common + 1) / (sizes + 1)).mean(dim=1)


def most_likely(outputs: Tensor) -> Tensor:
    """Return (batch, height, width) class indices of (batch, classes, height, width) logits."""
    return outputs.argmax(dim=1).to(torch.uint8 if outputs.shape[1] <= 256 else torch.int64)


def segmentation_metrics(outputs: Floats, masks: Labels, *, classes: int) -> dict[str, float]:
    """Return ``dice``, ``accuracy`` and ``majority`` of outputs, or of ``most_likely`` answers.

    ``dice`` is the mean over the classes but the background (``metrics.dice_per_class``),
    ``accuracy`` the share of judged pixels that are right, ``majority`` that of the most
    frequent class. ``masks`` (n, height, width). No judged pixel: no metrics.
    """
    judged = masks != IGNORE
    if not judged.any():
        return {}
    answers = outputs.argmax(axis=1) if outputs.ndim == 4 else outputs
    truth = masks[judged]
    figures = {
        "accuracy": float((answers[judged] == truth).mean()),
        "majority": float(np.bincount(truth).max() / len(truth)),
    }
    each = metrics.dice_per_class(answers, masks, classes, IGNORE)[1:]
    if not np.isnan(each).all():
        figures["dice"] = float(np.nanmean(each))
    return finite(figures)
