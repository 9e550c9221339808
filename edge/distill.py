"""The student learns the teacher's answers on public data: post-processing of a private model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from ..core.errors import InvalidInput
from ..core.plan_edge import Distillation
from ..data.public import PublicSet
from ..models.evaluate import finite_outputs, logits, records_at_once
from ..privacy.origin import require_releasable
from .distill_teacher import Teacher
from .distill_vary import Reads, varies, vary
from .hints import Hint, hint_between, with_features
from .losses import Loss, loss_of

Records = NDArray[np.generic]
Progress = Callable[[float], None]
REPORTS = 20  # evaluations on held-out records within all steps
HELD_OUT, MOST_HELD_OUT = 0.1, 1000  # share and largest number of records that are held out
TELLS = 25  # steps between two calls of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """How a distillation went: the last ``loss``, ``steps`` that ran, which one's student is kept.

    ``agreement`` is the share of held-out records that the kept student answers as its teacher
    does; None without early stopping, where no record is held out.
    """

    loss: float
    steps: int
    kept_step: int
    agreement: float | None = None


def distil(
    teacher: nn.Module,
    student: nn.Module,
    transfer: PublicSet,
    *,
    recipe: Distillation,
    seed: int,
    reads: Reads | None = None,
    progress: Progress | None = None,
) -> Distilled:
    """Train ``student`` in place, all its parameters; ``teacher`` stays as it is.

    Both map raw records (batch, ...) to (batch, classes) logits. ``reads`` (see ``reads_of``)
    says what a record is, and so how it may be varied; without it, records of several axes are
    images and others stay as they are. Labels are not read. The teacher's calibration is part
    of its answers: a student that learns them with the loss "kl" is calibrated alike, and needs
    no layer for it. With one thread the same arguments give the same student. Raises
    ``Refused`` when the transfer set is private, and ``InvalidInput`` when it holds fewer
    records than a batch, the recipe does not fit, or the loss is no number.
    """
    require_releasable(transfer.origin, "distillation")
    train, held = _parts(transfer, recipe, seed)
    reads = reads or Reads(kind="image" if train.ndim > 2 else "other")
    teacher.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers that drop at random, the hint's map
        lesson = _Lesson(teacher, student, train, recipe=recipe, reads=reads, seed=seed)
        watch = _Watch(teacher, student, held, recipe) if recipe.patience else None
        step, loss = 0, 0.0
        for step in range(1, recipe.steps + 1):
            if progress is not None and (step - 1) % TELLS == 0:
                progress((step - 1) / recipe.steps)
            loss = lesson.step()
            if watch is not None and watch.is_over(step):
                break
    kept_step, agreement = watch.restore() if watch is not None else (step, None)
    student.eval()
    return Distilled(loss=loss, steps=step, kept_step=kept_step, agreement=agreement)


class _Lesson:
    """One student's optimizer, schedule and random stream."""

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        x: Records,
        *,
        recipe: Distillation,
        reads: Reads,
        seed: int,
    ) -> None:
        self._student, self._x, self._recipe, self._reads = student, x, recipe, reads
        self._random = Generator().manual_seed(seed)
        self._loss, self._hint = _losses(teacher, student, x, recipe)
        self._teacher = Teacher(
            teacher,
            records=len(x),
            at_once=records_at_once(teacher, x[: recipe.batch]),
            hint=self._hint is not None,
            as_they_are=not varies(reads, recipe),
        )
        parameters = [*student.parameters(), *(self._hint.parameters() if self._hint else ())]
        self._optimizer = torch.optim.AdamW(
            parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        # one step has no schedule to follow, and OneCycleLR wants two
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            recipe.learning_rate,
            total_steps=max(2, recipe.steps),
            pct_start=0.15,
        )

    def step(self) -> float:
        """Take one step on a fresh batch; return its loss."""
        self._student.train()
        picked = torch.randint(len(self._x), (self._recipe.batch,), generator=self._random)
        batch = vary(_tensor(self._x[picked.numpy()]), self._reads, self._recipe, self._random)
        loss = self._loss_on(batch, self._teacher.answer(batch, picked))
        if not torch.isfinite(loss):
            raise InvalidInput(
                "the loss of the distillation is no number",
                why="the student's weights grew without bound, or the teacher's answers are none",
                cure="write a smaller learning_rate in [distillation]",
            )
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        return float(loss.detach())

    def _loss_on(self, batch: Tensor, taught: tuple[Tensor, ...]) -> Tensor:
        if self._hint is None:
            return self._loss(self._student(batch), taught[0])
        answers, features = with_features(self._student, batch)
        loss = self._loss(answers, taught[0])
        return loss + self._recipe.hint * self._hint(features, taught[1])


class _Watch:
    """Held-out records, on which the best student so far is found and kept."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, x: Records, recipe: Distillation
    ) -> None:
        self._student, self._x, self._recipe = student, x, recipe
        self._every = max(1, recipe.steps // REPORTS)
        self._wanted = finite_outputs(logits(teacher, x))
        self._loss = loss_of(recipe, self._wanted.shape[1])
        self._best: tuple[float, float] = (-1.0, 0.0)
        self._kept: dict[str, Any] = {}
        self._step, self._without_gain = 0, 0

    def is_over(self, step: int) -> bool:
        """Look at the student where it is due; return whether patience is at its end."""
        if step % self._every and step != self._recipe.steps:
            return False
        found = finite_outputs(logits(self._student, self._x))
        agreement = float((found.argmax(1) == self._wanted.argmax(1)).mean())
        loss = float(self._loss(torch.from_numpy(found), torch.from_numpy(self._wanted)))
        if (agreement, -loss) > self._best:
            self._best, self._step, self._without_gain = (agreement, -loss), step, 0
            self._kept = copy.deepcopy(self._student.state_dict())
        else:
            self._without_gain += 1
        return self._without_gain >= self._recipe.patience

    def restore(self) -> tuple[int, float]:
        """Give the student its best weights back; return their step and agreement."""
        self._student.load_state_dict(self._kept)
        return self._step, self._best[0]


def _parts(transfer: PublicSet, recipe: Distillation, seed: int) -> tuple[Records, Records]:
    """Return the records that train, and those held out where the recipe is patient."""
    held = min(MOST_HELD_OUT, int(len(transfer) * HELD_OUT)) if recipe.patience else 0
    if len(transfer) - held < recipe.batch or (recipe.patience and not held):
        raise InvalidInput(
            f"the transfer set '{transfer.name}' has {len(transfer)} records",
            why=f"distillation draws batches of {recipe.batch}"
            + f", and {held} records are held out" * bool(held),
            cure="give a larger public or synthetic set",
        )
    if not held:
        return transfer.x, transfer.x[:0]
    order = np.random.default_rng([seed, 0xD157]).permutation(len(transfer))
    return transfer.x[np.sort(order[held:])], transfer.x[np.sort(order[:held])]


def _losses(
    teacher: nn.Module, student: nn.Module, x: Records, recipe: Distillation
) -> tuple[Loss, Hint | None]:
    """Return the loss between answers, and the one between features where it is asked for."""
    few = _tensor(x[:2])
    student.eval()  # the statistics of BatchNorm do not move yet
    with torch.no_grad():
        classes = teacher(few).shape[1]
        hint = hint_between(student, teacher, few) if recipe.hint else None
    return loss_of(recipe, classes), hint


def _tensor(x: Records) -> Tensor:
    return torch.from_numpy(np.array(x, dtype=np.float32))
