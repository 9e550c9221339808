"""The loss by hand, the augmentation's range, and a student that really learns."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from collegium.core.errors import InvalidInput, Refused
from collegium.data.public import PublicSet
from collegium.edge.distill import Distillation, augment, distil, soft_loss
from collegium.edge.students import build_student


def test_soft_loss_by_hand() -> None:
    """T=2: teacher softmax(ln 3, 0) = (3/4, 1/4), student (1/2, 1/2); times T^2 = 4."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert soft_loss(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)
    assert soft_loss(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-7)


def test_augmentation_stays_in_range_and_follows_the_seed(glyphs: PublicSet) -> None:
    x = torch.from_numpy(glyphs.x[:32]).float()
    one, two = (augment(x, Distillation(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, x)
    assert one.min() >= x.min() and one.max() <= x.max()
    off = Distillation(mixup=0.0, noise=0.0)
    assert torch.equal(augment(x, off, torch.Generator().manual_seed(3)), x)


def test_student_learns_the_teacher_and_leaves_it_alone(
    teacher: nn.Module, glyphs: PublicSet
) -> None:
    before = [parameter.clone() for parameter in teacher.parameters()]
    student = build_student("auto", teacher, shape=(8, 8), classes=10, seed=0)
    shares: list[float] = []
    recipe = Distillation(steps=100, batch=64)
    distil(teacher, student, glyphs, recipe=recipe, seed=0, progress=shares.append)
    x = torch.from_numpy(glyphs.x[:400]).float()
    with torch.no_grad():
        agreement = (student(x).argmax(1) == teacher(x).argmax(1)).float().mean().item()
    assert agreement > 0.7  # 0.1 by chance
    assert not student.training
    assert shares == [0, 0.25, 0.5, 0.75]
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))


def test_same_seed_same_student(teacher: nn.Module, glyphs: PublicSet) -> None:
    losses: list[float] = []
    for _ in range(2):
        student = build_student("auto", teacher, shape=(8, 8), classes=10, seed=1)
        recipe = Distillation(steps=3, batch=16)
        losses.append(distil(teacher, student, glyphs, recipe=recipe, seed=9))
    assert losses[0] == losses[1]


def test_private_and_small_sets_are_refused(teacher: nn.Module) -> None:
    with pytest.raises(Refused):
        PublicSet(name="records", origin="private", x=np.zeros((200, 8, 8), np.float32))
    few = PublicSet(name="few", origin="synthetic", x=np.zeros((2, 8, 8), np.float32))
    smuggled = PublicSet(name="records", origin="public", x=np.zeros((200, 8, 8), np.float32))
    object.__setattr__(smuggled, "origin", "private")
    for wrong, error in ((few, InvalidInput), (smuggled, Refused)):
        with pytest.raises(error):
            distil(teacher, teacher, wrong, recipe=Distillation(), seed=0)
