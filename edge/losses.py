"""What a student is punished for: answers that differ from its teacher's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import InvalidInput
from ..core.plan_edge import Distillation

Loss = Callable[[Tensor, Tensor], Tensor]
"""(batch, classes) logits of the student and of the teacher to one number, a mean over records."""
TINY = 1e-7  # of a deviation, so that equal logits divide nothing by zero


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)), a mean over the batch.

    Logits (batch, classes). Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    return divergence * temperature**2


def standardised_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``soft_loss`` of logits that have mean 0 and deviation 1 within each record.

    Logits (batch, classes). The student then learns how the classes compare, neither the
    teacher's scale nor what all its logits share: chances that the teacher's calibration made
    right are not handed down. Sun et al., CVPR 2024, Algorithm 1,
    https://arxiv.org/abs/2403.01427
    """
    return soft_loss(_standardised(student), _standardised(teacher), temperature)


def loss_of(recipe: Distillation, classes: int) -> Loss:
    """Return the loss that a recipe names.

    Raises ``InvalidInput`` for standardised logits of two classes: they are -1 and 1 whatever
    the answer was, so that nothing but their order would be left to learn from.
    """
    if recipe.loss == "kl":
        return lambda student, teacher: soft_loss(student, teacher, recipe.temperature)
    if classes < 3:
        raise InvalidInput(
            f"[distillation] loss = '{recipe.loss}' with {classes} classes",
            why="two standardised logits are -1 and 1 whatever the answer is",
            cure='write loss = "kl"',
        )
    return lambda student, teacher: standardised_loss(student, teacher, recipe.temperature)


def _standardised(logits: Tensor) -> Tensor:
    middle = logits.mean(dim=1, keepdim=True)
    spread = torch.sqrt((logits - middle).square().mean(dim=1, keepdim=True) + TINY**2)
    return (logits - middle) / (spread + TINY)
