"""A second thing to learn from a teacher: the features that its head reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidInput


class Hint(nn.Module):
    """How far a student's features, mapped linearly, are from the teacher's.

    The map trains with the student and is thrown away afterwards. Romero et al., ICLR 2015,
    section 2.2, https://arxiv.org/abs/1412.6550, with features of length 1: a distance of 0 is
    the same direction, 4 the opposite one.
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.map = nn.Linear(student_width, teacher_width)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Map (batch, student_width), (batch, teacher_width) to the mean squared distance."""
        mapped = functional.normalize(self.map(student), dim=1)
        wanted = functional.normalize(teacher, dim=1)
        return (mapped - wanted).square().sum(dim=1).mean()


def with_features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (batch, classes) logits of raw records, and the (batch, width) that the head read.

    Raises ``InvalidInput`` for a model without a layer ``head`` that reads one vector per record.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Module):
        raise _no_features(model, "it has no layer named head")
    read: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        read.append(inputs[0])

    hook = head.register_forward_pre_hook(keep)
    try:
        answers = model(x)
    finally:
        hook.remove()
    if len(read) != 1 or read[0].dim() != 2:
        raise _no_features(model, "its head does not read one vector per record")
    return answers, read[0]


def hint_between(student: nn.Module, teacher: nn.Module, x: Tensor) -> Hint:
    """Return an untrained hint that fits both; ``x`` (batch, ...) holds raw records.

    Raises as ``with_features``.
    """
    return Hint(with_features(student, x)[1].shape[1], with_features(teacher, x)[1].shape[1])


def _no_features(model: nn.Module, why: str) -> InvalidInput:
    return InvalidInput(
        f"the model {type(model).__name__} shows no features to learn from",
        why=why,
        cure="write [distillation] hint = 0",
    )
