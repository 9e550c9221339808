"""Which small model learns from the global one: by name, at least five times smaller."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..core.errors import InvalidInput, NotBuiltYet

SHRINK = 5.0  # a student has at most 1/SHRINK of its teacher's parameters
TINY, SAME, AUTO = "cnn:tiny", "same", "auto"
NONE = "none"  # no small model is asked for
TINY_BLOCKS = ((24, 1), (32, 2), (28, 1))  # (channels, stride) of each convolution


class TinyCNN(nn.Module):
    """Small grey images to class logits by plain Conv-BatchNorm-ReLU blocks.

    BatchNorm is allowed here, because everything a student sees is public; it is folded into
    the convolutions at export. ``preprocess`` maps raw (batch, height, width) to
    (batch, 1, height, width).
    """

    def __init__(self, preprocess: nn.Module, side: int, classes: int) -> None:
        super().__init__()
        self.preprocess = preprocess
        layers: list[nn.Module] = []
        channels = 1
        for outputs, stride in TINY_BLOCKS:
            layers.append(nn.Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            channels, side = outputs, -(-side // stride)
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(channels * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, height, width) raw pixels to (batch, classes) logits."""
        return self.head(self.body(self.preprocess(x)))


def resolve_student(name: str, shape: tuple[int, ...]) -> str:
    """Return the student that ``auto`` means for records of this shape: small nets for images.

    Raises ``NotBuiltYet`` for names of later versions and ``InvalidInput`` for a student that
    does not fit the records.
    """
    image = len(shape) == 2 and shape[0] == shape[1]
    if name == AUTO:
        return TINY if image else SAME
    if name not in (TINY, SAME):
        raise NotBuiltYet(
            f"the student '{name}' is not built yet", cure=f"use {AUTO}, {TINY}, {SAME} or {NONE}"
        )
    if name == TINY and not image:
        raise InvalidInput(
            f"the student '{TINY}' cannot read records of shape {shape}",
            why="it convolves square grey images",
            cure=f"use {SAME} or {AUTO}",
        )
    return name


def build_student(
    name: str, teacher: nn.Module, *, shape: tuple[int, ...], classes: int, seed: int
) -> nn.Module:
    """Return an untrained student, or a copy of the teacher for ``same``.

    ``shape`` is one raw record's. The first layer is the teacher's own ``preprocess``. Raises
    as ``resolve_student``, and ``InvalidInput`` when the student is not at least five times
    smaller than its teacher.
    """
    kind = resolve_student(name, shape)
    if kind == SAME:
        return copy.deepcopy(teacher).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = TinyCNN(copy.deepcopy(_preprocess(teacher)), shape[0], classes)
    if parameter_count(student) * SHRINK > parameter_count(teacher):
        raise InvalidInput(
            f"the student '{kind}' has {parameter_count(student)} parameters, "
            f"its teacher {parameter_count(teacher)}",
            why=f"a student must be at least {SHRINK:.0f} times smaller",
            cure=f"ship the teacher itself with student = '{SAME}'",
        )
    return student


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters, trained or frozen."""
    return sum(parameter.numel() for parameter in model.parameters())


def _preprocess(teacher: nn.Module) -> nn.Module:
    first = getattr(teacher, "preprocess", None)
    if not isinstance(first, nn.Module):
        raise InvalidInput(
            "the global model has no layer named preprocess",
            why="raw values must be scaled on the device as they were at the sites",
            cure="give the model a module 'preprocess' that maps raw records to its input",
        )
    return first
