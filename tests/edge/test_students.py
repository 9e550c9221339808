"""Which student a name means, how small it is, and that it starts from raw records."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from collegium.core.errors import InvalidInput
from collegium.core.plan_edge import Distillation
from collegium.core.plan_edge_checks import STUDENTS
from collegium.core.plan_model import ModelRef
from collegium.edge.students import (
    SAME,
    SMALL,
    TINY,
    build_student,
    parameter_count,
    recipe_for,
    resolve_student,
)
from collegium.edge.students_conv import WIDTHS
from collegium.edge.students_layers import layer_count
from collegium.edge.students_size import exported_bytes, widest_exported
from collegium.edge.students_table import HIDDEN
from collegium.edge.students_words import architecture
from collegium.models import registry
from collegium.models.heads import Headed
from collegium.models.images import ImagePreprocess

TABLE = ModelRef(
    name="tabular:mlp",
    task="classification",
    classes=("a", "b"),
    bounds={"x": (0.0, 100.0), "y": (-1.0, 1.0)},
    options={"hidden": 128},
)


def test_auto_is_tiny_for_small_images_small_for_others_and_same_for_rows() -> None:
    assert resolve_student("auto", (8, 8)) == TINY
    assert resolve_student("auto", (16, 12, 1)) == TINY
    assert resolve_student("auto", (28, 28, 1)) == SMALL
    assert resolve_student("auto", (30,)) == SAME
    assert resolve_student("auto", (64,), kind="text") == SAME


def test_auto_is_never_larger_than_its_teacher() -> None:
    """A glyph-sized teacher of 640 parameters is already smaller than any student."""
    first = ImagePreprocess(None, (0.5,), (0.5,))
    small = Headed(first, nn.Sequential(nn.Flatten()), nn.Linear(64, 10))
    assert resolve_student("auto", (8, 8, 1), teacher=small) == SAME
    middle = Headed(first, nn.Sequential(nn.Flatten()), nn.Linear(28 * 28, 200))
    assert resolve_student("auto", (28, 28, 1), teacher=middle) == TINY  # of 157,000 parameters
    assert isinstance(build_student("auto", small, shape=(8, 8, 1), classes=10, seed=0), Headed)


@pytest.mark.parametrize(
    "name", ["cnn:huge", "mlp:8", "layers:0", "layers:two", "size:-1", "qat:a"]
)
def test_unknown_names(name: str) -> None:
    with pytest.raises(InvalidInput, match="no student"):
        resolve_student(name, (8, 8))


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [(TINY, (30,), None), ("mlp:small", (8, 8), None), ("mlp:small", (64,), "text")],
)
def test_misfits(name: str, shape: tuple[int, ...], kind: str | None) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        resolve_student(name, shape, kind=kind)  # type: ignore[arg-type]


def test_tiny_is_that_of_the_demo_and_reads_raw_pixels(teacher: nn.Module) -> None:
    """24, 32 and 28 channels: 216 + 6,912 + 8,064 weights, 168 of BatchNorm, 4,490 of the head."""
    student = build_student("auto", teacher, shape=(8, 8), classes=10, seed=0)
    assert parameter_count(student) == 216 + 6912 + 8064 + 168 + 4490
    assert student(torch.full((3, 8, 8), 16.0)).shape == (3, 10)
    children = [name for name, _ in student.named_children()]
    assert children == ["preprocess", "body", "head"]


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
    small.preprocess = ImagePreprocess(None, (0.5,), (0.5,))
    with pytest.raises(InvalidInput, match="smaller than its teacher"):
        build_student(TINY, small, shape=(8, 8, 1), classes=10, seed=0)


def test_a_teacher_without_preprocess_is_refused() -> None:
    with pytest.raises(InvalidInput, match="preprocess"):
        build_student(TINY, nn.Linear(64, 10), shape=(8, 8), classes=10, seed=0)


def test_the_students_of_a_table_keep_what_the_sites_have_fitted() -> None:
    from collegium.models.preprocess import Standardise

    teacher = registry.build(TABLE)
    first = teacher.get_submodule("preprocess")
    first.standardise = Standardise(2, clip=3.0)
    first.standardise.mean.copy_(torch.tensor([0.25, -0.5]))
    student = build_student("mlp:small", teacher, shape=(2,), classes=2, seed=0, model=TABLE)
    x = torch.tensor([[30.0, 0.5], [500.0, -1.0]])
    assert torch.equal(student.get_submodule("preprocess")(x), first(x))
    assert student(x).shape == (2, 2)
    hidden = 2 * 32 + 32 + 32 * 32 + 32
    assert parameter_count(student) == hidden + 32 * 2 + 2


def test_the_plan_knows_every_size_that_there_is() -> None:
    named = {name for name in STUDENTS if ":" in name}
    assert named == {f"cnn:{size}" for size in WIDTHS} | {f"mlp:{size}" for size in HIDDEN}


TEETH = replace(
    TABLE,
    name="tabular:ft-transformer",
    options={"layers": 3, "width": 32},
    categories={"ward": tuple("abcdefghij"), "sex": ("f", "m")},
    missing="flag",
    unknown="zero",
)


def test_a_student_of_a_table_by_size_keeps_its_promise() -> None:
    """The real file, with categories and flags of missing values in it."""
    teacher, size = registry.build(TEETH), 5_000
    student = build_student(f"size:{size}", teacher, shape=(4,), classes=2, seed=0, model=TEETH)
    assert 0.8 * size <= exported_bytes(student, (4,)) <= size
    assert "multilayer perceptron: 2 hidden" in architecture(f"size:{size}", student, "x")


def test_a_table_size_that_nothing_fits_names_the_real_least() -> None:
    """What the estimate misses is a table of numbers in no layer that it knows."""

    class Odd(nn.Linear):
        def __init__(self, outputs: int) -> None:
            super().__init__(4, outputs)
            self.register_buffer("shift", torch.arange(800.0).view(200, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + (x[:, None] - self.get_buffer("shift")).amin(dim=1))

    def width(size: int) -> int:
        return widest_exported(Odd, 2, 90, size_bytes=size, below=9_999, shape=(4,))

    with pytest.raises(InvalidInput, match="too small") as caught:
        width(2_000)
    least = int(caught.value.cure.split('"size:')[1].split('"')[0])
    assert 2_000 < least == exported_bytes(Odd(2), (4,))


def test_a_transformer_of_rows_can_lose_layers() -> None:
    teacher = registry.build(TEETH)
    x = torch.tensor([[30.0, 0.5, 1.0, 0.0]])
    student = build_student("layers:1", teacher, shape=(4,), classes=2, seed=0, model=TEETH)
    assert layer_count(teacher) == 3 and parameter_count(student) < parameter_count(teacher)
    assert [type(part).__name__ for part in student.get_submodule("body")] == [  # type: ignore[union-attr]
        "FeatureTokens", "Block", "FirstToken",
    ]  # fmt: skip
    assert student(x).shape == (1, 2)
    two = build_student("layers:2", teacher, shape=(4,), classes=2, seed=0, model=TEETH)
    own, was = two.state_dict(), teacher.state_dict()
    assert torch.equal(own["body.2.query.weight"], was["body.3.query.weight"])
    assert "2 of its attention layers" in architecture("layers:2", two, TEETH.name)


def test_what_a_student_is_in_words(teacher: nn.Module) -> None:
    tiny = build_student(TINY, teacher, shape=(8, 8), classes=10, seed=0)
    assert "3 convolutions of 3 x 3 with 24 to 32 channels" in architecture(TINY, tiny, "g")
    assert architecture(SAME, teacher, "g") == "g: the global model itself"
    assert architecture("cifar:resnet20", tiny, "g") == "cifar:resnet20"


def test_an_open_model_needs_the_plan(teacher: nn.Module) -> None:
    with pytest.raises(InvalidInput, match="open model"):
        build_student("cifar:resnet20", teacher, shape=(8, 8), classes=10, seed=0)


def test_the_plan_decides_how_a_student_is_trained() -> None:
    asked = Distillation(steps=7)
    assert recipe_for("layers:3", asked) is asked
    assert recipe_for(TINY) == Distillation()
    assert recipe_for("layers:3").learning_rate < recipe_for(TINY).learning_rate
