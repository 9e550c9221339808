"""The student learns the teacher's answers on public data: post-processing of a private model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidInput
from ..data.public import PublicSet
from ..privacy.origin import require_releasable


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """How a student is trained: public constants, chosen on public proxies.

    ``steps`` batches of ``batch`` records at peak ``learning_rate`` (one-cycle); logits are
    softened by ``temperature``; a share ``mixup`` of each batch is blended with another record;
    ``noise`` is the largest standard deviation of pixel noise, as a share of the range.
    """

    steps: int = 500
    batch: int = 128
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    temperature: float = 4.0
    mixup: float = 0.5
    noise: float = 0.06


def distil(
    teacher: nn.Module,
    student: nn.Module,
    transfer: PublicSet,
    *,
    recipe: Distillation,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> float:
    """Train ``student`` in place and return the last loss; ``teacher`` stays as it is.

    Labels are not read. Raises ``Refused`` when the transfer set is private and
    ``InvalidInput`` when it holds fewer records than a batch.
    """
    require_releasable(transfer.origin, "distillation")
    if len(transfer) < recipe.batch:
        raise InvalidInput(
            f"the transfer set '{transfer.name}' has {len(transfer)} records",
            why=f"distillation draws batches of {recipe.batch}",
            cure="give a larger public or synthetic set",
        )
    x = torch.from_numpy(transfer.x).float()
    random = Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        student.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.15
    )
    teacher.eval()
    student.train()
    loss = torch.zeros(())
    for step in range(recipe.steps):
        batch = augment(_draw(x, recipe.batch, random), recipe, random)
        with torch.no_grad():
            answers = teacher(batch)  # (batch, classes)
        loss = soft_loss(student(batch), answers, recipe.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None and step % 25 == 0:
            progress(step / recipe.steps)
    student.eval()
    return float(loss.detach())


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)), a mean over the batch.

    Logits (batch, classes). Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    return divergence * temperature**2


def augment(x: Tensor, recipe: Distillation, random: Generator) -> Tensor:
    """Blend some records (batch, ...) with others and add noise, within the batch's range.

    Mixup without labels (Zhang et al. 2018): the teacher answers for the blend itself.
    """
    shape = (len(x), *(1 for _ in x.shape[1:]))
    low, high = x.amin(), x.amax()
    mixed = torch.rand(shape, generator=random) < recipe.mixup
    share = torch.rand(shape, generator=random) * 0.5 * mixed
    blended = x * (1 - share) + x.flip(0) * share
    spread = torch.rand(shape, generator=random) * recipe.noise * (high - low)
    noise = torch.randn(x.shape, generator=random) * spread
    return torch.minimum(torch.maximum(blended + noise, low), high)


def _draw(x: Tensor, count: int, random: Generator) -> Tensor:
    return x[torch.randint(len(x), (count,), generator=random)]
