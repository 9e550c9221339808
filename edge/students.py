"""Which small model learns from the global one: by name or by size, always smaller than it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..core.errors import InvalidInput
from ..core.plan_edge import Distillation
from ..core.plan_model import ModelRef
from ..models import registry
from ..models.cards import InputKind
from .students_conv import LEAST_WIDTH, MOST_WIDTH, SMALL_SIDE, WIDTHS, conv_student
from .students_layers import layer_count, thinned
from .students_open import open_student
from .students_size import widest, widest_exported
from .students_table import HIDDEN, LEAST_HIDDEN, MOST_HIDDEN, mlp_student

TINY, SMALL, SAME, AUTO = "cnn:tiny", "cnn:small", "same", "auto"
NONE = "none"  # no small model is asked for
CNN, MLP, LAYERS, SIZE = "cnn", "mlp", "layers", "size"
OPEN = (
    "collegium", "cifar", "torchvision", "timm", "hf", "tabular", "text", "segmentation", "plugin",
)  # fmt: skip
KIND_BY_AXES: tuple[InputKind, ...] = ("other", "table", "image", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An untrained student, and ``start``: the open model that it is, with the weights it has.

    None for one that is no open model itself.
    """

    model: nn.Module
    start: ModelRef | None = None


def resolve_student(
    name: str,
    shape: tuple[int, ...],
    *,
    kind: InputKind | None = None,
    teacher: nn.Module | None = None,
) -> str:
    """Return the student that ``auto`` means for records of this shape, and any other as it is.

    Images get "cnn:tiny" up to 16 pixels and "cnn:small" above, but none that has not fewer
    parameters than the ``teacher``, where that is given; tables and texts stay ``same``.
    ``kind`` tells rows from texts. Raises ``InvalidInput`` for a name that is no student's, and
    for a family that does not read such records.
    """
    kind = kind or KIND_BY_AXES[min(len(shape), 3)]
    if name == AUTO:
        return _auto(shape, kind, teacher)
    family, _, rest = name.partition(":")
    if name in (SAME, NONE) or family in OPEN:
        return name
    known = {CNN: rest in WIDTHS, MLP: rest in HIDDEN}
    if not known.get(family, family in (LAYERS, SIZE) and bool(re.fullmatch("[1-9][0-9]*", rest))):
        raise InvalidInput(
            f"there is no student '{name}'",
            why="a student is a family and a size, an open model, or the global model itself",
            cure=f"use {AUTO}, {SAME}, {NONE}, {CNN}:{'|'.join(WIDTHS)}, {MLP}:{'|'.join(HIDDEN)}, "
            f"{LAYERS}:N, {SIZE}:BYTES or the name of an open model",
        )
    if (family == CNN and kind != "image") or (family == MLP and kind != "table"):
        raise InvalidInput(
            f"the student '{name}' cannot read records of shape {shape}",
            why="it convolves images" if family == CNN else "it reads rows of a table",
            cure=f"use {SAME} or {AUTO}",
        )
    return name


def build_student(
    name: str,
    teacher: nn.Module,
    *,
    shape: tuple[int, ...],
    classes: int,
    seed: int,
    model: ModelRef | None = None,
) -> nn.Module:
    """Return an untrained student alone; as ``built_student``."""
    return built_student(name, teacher, shape=shape, classes=classes, seed=seed, model=model).model


def built_student(
    name: str,
    teacher: nn.Module,
    *,
    shape: tuple[int, ...],
    classes: int,
    seed: int,
    model: ModelRef | None = None,
) -> Built:
    """Return an untrained student, or a copy of the teacher for ``same``.

    ``shape`` is one raw record's; ``model`` is the plan's, which an open model as student needs.
    The first layer scales raw values as the teacher's own does. "layers:N" starts from the
    teacher's weights, an open model from its own, all others at random by ``seed``. Raises as
    ``resolve_student``, and ``InvalidInput`` when the student has not fewer parameters than its
    teacher.
    """
    kind = None if model is None else registry.input_kind(model)
    resolved = resolve_student(name, shape, kind=kind, teacher=teacher)
    if resolved == SAME:
        return Built(model=copy.deepcopy(teacher).eval())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = _made(resolved, teacher, shape, classes, model)
    if parameter_count(student.model) >= parameter_count(teacher):
        raise InvalidInput(
            f"the student '{resolved}' has {parameter_count(student.model)} parameters, "
            f"its teacher {parameter_count(teacher)}",
            why="a student must be smaller than its teacher",
            cure=f"name a smaller one, or ship the teacher itself with student = '{SAME}'",
        )
    return student


def recipe_for(
    student: str, asked: Distillation | None = None, *, classes: int = 0
) -> Distillation:
    """Return how a student of this (resolved) name is trained: as the plan asks, else by its start.

    A student that starts from trained weights learns in smaller steps and from records as they
    are; an open model with its own scale of logits (three classes or more) by standardised ones,
    for the teacher's scale is another (measured on CIFAR: .738 instead of .841). A larger
    convolutional one learns in smaller steps, too (measured on PneumoniaMNIST).
    """
    if asked is not None:
        return asked
    family = student.partition(":")[0]
    if family == LAYERS:  # transformers want smaller steps
        return Distillation(learning_rate=2e-4, mixup=0.0, noise=0.0, batch=64)
    if family in OPEN:
        plain = Distillation(learning_rate=1e-3, mixup=0.0, noise=0.0, batch=64)
        return replace(plain, loss="logit-std", temperature=2.0) if classes > 2 else plain
    if family == MLP:
        return Distillation(steps=1500, mixup=0.25, noise=0.02)
    if family in (CNN, SIZE) and student != TINY:
        return Distillation(batch=64, learning_rate=3e-3, noise=0.02)
    return Distillation()


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters, trained or frozen."""
    return sum(parameter.numel() for parameter in model.parameters())


def _auto(shape: tuple[int, ...], kind: InputKind, teacher: nn.Module | None) -> str:
    if kind != "image" or len(shape) not in (2, 3):
        return SAME
    names = (TINY,) if max(shape[:2]) <= SMALL_SIDE else (SMALL, TINY)
    for name in names:
        size = name.partition(":")[2]
        if teacher is None:
            return name
        first = _preprocess(teacher)
        with torch.random.fork_rng(devices=[]):
            student = conv_student(first, shape, 2, size=size)
        if parameter_count(student) < parameter_count(teacher):
            return name
    return SAME


def _made(
    name: str,
    teacher: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    model: ModelRef | None,
) -> Built:
    family, _, rest = name.partition(":")
    if family == CNN:
        return Built(model=conv_student(_preprocess(teacher), shape, classes, size=rest))
    if family == MLP:
        return Built(model=mlp_student(_preprocess(teacher), shape, classes, size=rest))
    if family == LAYERS:
        return Built(model=thinned(teacher, int(rest)))
    if family == SIZE:
        return Built(model=_of_size(int(rest), teacher, shape, classes, model))
    if model is None:
        raise InvalidInput(
            f"the student '{name}' is an open model",
            why="it needs to know the plan's records and classes",
            cure="pass model, the plan's [model]",
        )
    found = open_student(name, model)
    return Built(model=found.model, start=found.start)


def _of_size(
    size_bytes: int,
    teacher: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    model: ModelRef | None,
) -> nn.Module:
    """Return the widest student whose file takes about that much at most, of the records' family.

    Images: convolutions; tables: two hidden layers, which stay fp32; texts: the teacher's layers.
    """
    kind = registry.input_kind(model) if model else KIND_BY_AXES[min(len(shape), 3)]
    make: Callable[[int], nn.Module]
    if kind == "text":
        make, low, high = (lambda n: thinned(teacher, n)), 1, layer_count(teacher) - 1
    elif kind == "image":
        make, low, high = _family(conv_student, teacher, shape, classes), LEAST_WIDTH, MOST_WIDTH
    else:
        make, low, high = _family(mlp_student, teacher, shape, classes), LEAST_HIDDEN, MOST_HIDDEN
    below = parameter_count(teacher)
    with torch.random.fork_rng(devices=[]):
        if kind in ("text", "image"):
            width = widest(make, low, high, size_bytes=size_bytes, below=below)
        else:
            width = widest_exported(
                make, low, high, size_bytes=size_bytes, below=below, shape=shape
            )
    return make(width)


def _family(
    maker: Callable[..., nn.Module], teacher: nn.Module, shape: tuple[int, ...], classes: int
) -> Callable[[int], nn.Module]:
    first = _preprocess(teacher)
    return lambda width: maker(first, shape, classes, size=width)


def _preprocess(teacher: nn.Module) -> nn.Module:
    first = getattr(teacher, "preprocess", None)
    if not isinstance(first, nn.Module):
        raise InvalidInput(
            "the global model has no layer named preprocess",
            why="raw values must be scaled on the device as they were at the sites",
            cure="give the model a module 'preprocess' that maps raw records to its input",
        )
    return first
