"""A student that really learns, early stopping, the same student again, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collegium.core.errors import InvalidInput, Refused
from collegium.core.plan_edge import Distillation
from collegium.data.public import PublicSet
from collegium.edge.distill import distil
from collegium.edge.hints import with_features
from collegium.edge.students import build_student
from collegium.models.evaluate import logits
from collegium.models.heads import Headed

SHORT = Distillation(steps=100, batch=64)


def agreement(one: nn.Module, two: nn.Module, x: np.ndarray) -> float:
    return float((logits(one, x).argmax(1) == logits(two, x).argmax(1)).mean())


def tiny(teacher: nn.Module, seed: int = 0) -> nn.Module:
    return build_student("auto", teacher, shape=(8, 8), classes=10, seed=seed)


def test_student_learns_the_teacher_and_leaves_it_alone(
    teacher: nn.Module, glyphs: PublicSet
) -> None:
    before = [parameter.clone() for parameter in teacher.parameters()]
    state = torch.random.get_rng_state()
    student, shares = tiny(teacher), list[float]()
    found = distil(teacher, student, glyphs, recipe=SHORT, seed=0, progress=shares.append)
    assert agreement(student, teacher, glyphs.x[:400]) > 0.7  # 0.1 by chance
    assert not student.training
    assert shares == [0, 0.25, 0.5, 0.75]
    assert (found.steps, found.kept_step, found.agreement) == (100, 100, None)
    assert math.isfinite(found.loss)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "logit-std", "hint": 1.0},
        {"augment": "flip-shift", "patience": 2, "steps": 6},
    ],
)
def test_same_seed_same_student(
    changes: dict[str, object], teacher: nn.Module, glyphs: PublicSet
) -> None:
    recipe = replace(Distillation(steps=3, batch=16), **changes)
    students = [tiny(teacher, seed=1) for _ in range(3)]
    found = [
        distil(teacher, student, glyphs, recipe=recipe, seed=seed)
        for student, seed in zip(students, (9, 9, 10), strict=True)
    ]
    assert found[0] == found[1] != found[2]
    first, second = (student.state_dict() for student in students[:2])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_hint_tells_what_answers_do_not(glyphs: PublicSet) -> None:
    """A teacher that always answers alike: only the hint tells its student of its features."""
    left: list[float] = []
    for hint in (0.0, 5.0):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            mute, student = (
                Headed(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.Linear(8, 10))
                for _ in range(2)
            )
        nn.init.zeros_(mute.head.weight)
        recipe = replace(SHORT, steps=200, hint=hint, mixup=0.0)
        distil(mute, student, glyphs, recipe=recipe, seed=0)
        left.append(_untold(student, mute, torch.from_numpy(glyphs.x).float()))
    assert left[1] < 0.5 * left[0]


def _untold(student: nn.Module, teacher: nn.Module, x: Tensor) -> float:
    """Return the share of the teacher's features that no linear map of the student's gives."""
    with torch.no_grad():
        told, wanted = with_features(student, x)[1], with_features(teacher, x)[1]
        told, wanted = told - told.mean(0), wanted - wanted.mean(0)
        best = torch.linalg.lstsq(told, wanted).solution
        return float((wanted - told @ best).square().sum() / wanted.square().sum())


def test_the_best_student_on_held_out_records_is_kept(
    teacher: nn.Module, glyphs: PublicSet
) -> None:
    """A huge learning rate spoils the student: what is kept is an earlier one, and it says so."""
    student = tiny(teacher)
    recipe = replace(SHORT, steps=200, learning_rate=0.5, patience=3, noise=0.0)
    found = distil(teacher, student, glyphs, recipe=recipe, seed=0)
    assert found.agreement is not None
    assert found.kept_step <= found.steps
    assert found.kept_step % 10 == 0  # a twentieth of all steps lies between two looks
    assert found.steps == 200 or found.steps == found.kept_step + 30  # patience: three looks
    order = np.random.default_rng([0, 0xD157]).permutation(len(glyphs))
    held = glyphs.x[order[:120]]  # a tenth
    assert agreement(student, teacher, held) == pytest.approx(found.agreement, abs=1e-12)


def test_patience_zero_runs_to_the_end(teacher: nn.Module, glyphs: PublicSet) -> None:
    found = distil(teacher, tiny(teacher), glyphs, recipe=replace(SHORT, steps=1), seed=0)
    assert (found.steps, found.agreement) == (1, None)


def test_a_record_that_does_not_vary_is_asked_once(teacher: nn.Module, glyphs: PublicSet) -> None:
    """The same student comes out, and the teacher sees no more records than there are."""

    class Counting(nn.Module):
        asked = 0

        def forward(self, x: Tensor) -> Tensor:
            self.asked += len(x)
            return teacher(x)

    still = replace(SHORT, steps=40, mixup=0.0, noise=0.0)
    students, counts = [tiny(teacher) for _ in range(2)], [Counting() for _ in range(2)]
    part = PublicSet(name="part", origin="public", x=glyphs.x[:100])
    found = distil(counts[0], students[0], part, recipe=still, seed=0)
    hardly = replace(still, noise=1e-9)  # varies, but not so that it could be seen
    other = distil(counts[1], students[1], part, recipe=hardly, seed=0)
    looks = 2 + 1  # how many classes there are, and how many records fit into memory
    assert counts[0].asked <= 100 + looks
    assert counts[1].asked == 40 * 64 + looks
    assert found.loss == pytest.approx(other.loss, rel=0.05)


def test_private_and_small_sets_are_refused(teacher: nn.Module) -> None:
    few = PublicSet(name="few", origin="synthetic", x=np.zeros((2, 8, 8), np.float32))
    smuggled = PublicSet(name="records", origin="public", x=np.zeros((200, 8, 8), np.float32))
    object.__setattr__(smuggled, "origin", "private")
    for wrong, error in ((few, InvalidInput), (smuggled, Refused)):
        with pytest.raises(error):
            distil(teacher, teacher, wrong, recipe=Distillation(), seed=0)


def test_what_is_held_out_is_missing_for_training(teacher: nn.Module, glyphs: PublicSet) -> None:
    part = PublicSet(name="part", origin="public", x=glyphs.x[:70])
    distil(teacher, tiny(teacher), part, recipe=replace(SHORT, steps=1), seed=0)
    with pytest.raises(InvalidInput, match="7 records are held out"):
        distil(teacher, tiny(teacher), part, recipe=replace(SHORT, patience=1), seed=0)


def test_a_hint_needs_features(teacher: nn.Module, glyphs: PublicSet) -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InvalidInput, match="hint = 0"):
        distil(teacher, bare, glyphs, recipe=replace(SHORT, hint=1.0), seed=0)


def test_a_loss_that_is_no_number_ends_it(teacher: nn.Module, glyphs: PublicSet) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return teacher(x) * torch.nan

    with pytest.raises(InvalidInput, match="no number"):
        distil(Broken(), tiny(teacher), glyphs, recipe=replace(SHORT, steps=2), seed=0)


def test_a_table_of_numbers_and_categories_is_learnt(teacher: nn.Module) -> None:
    """Rows with missing numbers and other categories: the student answers them all the same."""
    from collegium.core.plan_model import ModelRef
    from collegium.edge.distill_vary import reads_of
    from collegium.models import registry

    ref = ModelRef(
        name="tabular:mlp",
        task="classification",
        classes=("a", "b"),
        bounds={"x": (0.0, 100.0), "y": (-1.0, 1.0)},
        categories={"c": ("r", "s", "t")},
        missing="flag",
        unknown="other",
    )
    model = registry.build(ref)
    assert isinstance(model, Headed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        for value in model.parameters():
            value.normal_(0, 0.7)
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(0, 100, 600), rng.uniform(-1, 1, 600)], 1).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    rows = np.column_stack([x, rng.integers(-1, 3, 600)]).astype(np.float32)
    public = PublicSet(name="rows", origin="synthetic", x=rows)
    found = logits(model, rows)
    with torch.no_grad():  # as many answers of one class as of the other
        model.head.bias[0] += float(np.median(found[:, 1] - found[:, 0]))
    student = build_student("mlp:tiny", model, shape=(3,), classes=2, seed=0, model=ref)
    recipe = Distillation(steps=300, batch=64)
    distil(model, student, public, recipe=recipe, seed=0, reads=reads_of(ref))
    assert agreement(student, model, rows) > 0.9  # 0.5 by chance
