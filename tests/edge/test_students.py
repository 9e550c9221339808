"""Which student a name means, how small it is, and that it starts from raw records."""

import pytest
import torch
from torch import nn

from collegium.core.errors import InvalidInput, NotBuiltYet
from collegium.edge.students import (
    SAME,
    SHRINK,
    TINY,
    build_student,
    parameter_count,
    resolve_student,
)


def test_auto_is_tiny_for_images_and_same_for_rows() -> None:
    assert resolve_student("auto", (8, 8)) == TINY
    assert resolve_student("auto", (30,)) == SAME


def test_names_of_later_versions_and_misfits() -> None:
    with pytest.raises(NotBuiltYet):
        resolve_student("cnn:large", (8, 8))
    with pytest.raises(InvalidInput):
        resolve_student(TINY, (30,))


def test_tiny_is_five_times_smaller_and_reads_raw_pixels(teacher: nn.Module) -> None:
    student = build_student("auto", teacher, shape=(8, 8), classes=10, seed=0)
    assert parameter_count(student) * SHRINK <= parameter_count(teacher)
    assert student(torch.full((3, 8, 8), 16.0)).shape == (3, 10)
    children = [name for name, _ in student.named_children()]
    assert children[0] == "preprocess"


def test_same_seed_same_student_and_global_seed_untouched(teacher: nn.Module) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (
        build_student("auto", teacher, shape=(8, 8), classes=10, seed=seed) for seed in (4, 4, 5)
    )
    first, second, third = (next(iter(m.parameters())) for m in (one, two, other))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert torch.equal(before, torch.random.get_rng_state())


def test_same_is_a_copy(teacher: nn.Module) -> None:
    student = build_student("same", teacher, shape=(8, 8), classes=10, seed=0)
    assert student is not teacher
    assert parameter_count(student) == parameter_count(teacher)


def test_a_teacher_that_is_already_small_is_refused() -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    small.preprocess = nn.Identity()
    with pytest.raises(InvalidInput, match="5 times smaller"):
        build_student(TINY, small, shape=(8, 8), classes=10, seed=0)


def test_a_teacher_without_preprocess_is_refused() -> None:
    with pytest.raises(InvalidInput, match="preprocess"):
        build_student(TINY, nn.Linear(64, 10), shape=(8, 8), classes=10, seed=0)
