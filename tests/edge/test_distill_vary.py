"""What may vary in a record, by its kind, and what must not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from collegium.core.errors import InvalidInput
from collegium.core.plan_edge import Distillation
from collegium.core.plan_model import ModelRef
from collegium.data.public import PublicSet
from collegium.edge.distill_vary import Reads, augment, reads_of, vary

OFF = Distillation(mixup=0.0, noise=0.0)
TABLE = Reads(kind="table", ranges=(100.0, 2.0))


def random(seed: int = 3) -> Generator:
    return Generator().manual_seed(seed)


def test_augmentation_stays_in_range_and_follows_the_seed(glyphs: PublicSet) -> None:
    x = torch.from_numpy(glyphs.x[:32]).float()
    one, two = (augment(x, Distillation(), random()) for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, x)
    assert one.min() >= x.min() and one.max() <= x.max()
    assert torch.equal(augment(x, OFF, random()), x)
    assert torch.equal(vary(x, Reads(kind="image"), OFF, random()), x)


@pytest.mark.parametrize("shape", [(6, 10, 7), (6, 10, 7, 3)])
def test_a_shifted_image_is_a_part_of_it(shape: tuple[int, ...]) -> None:
    """Each row and column comes from at most one pixel away (a tenth or less of the side)."""
    x = torch.arange(float(math.prod(shape))).reshape(shape)
    moved = vary(x, Reads(kind="image"), Distillation(mixup=0, noise=0, augment="shift"), random())
    assert moved.shape == x.shape and not torch.equal(moved, x)
    for one, other in zip(moved, x, strict=True):
        assert set(one.flatten().tolist()) <= set(other.flatten().tolist())
        middle, near = one[5, 3].flatten()[0], other[4:7, 2:5].flatten().tolist()
        assert middle.item() in near


def test_a_flipped_image_is_it_or_its_mirror() -> None:
    x = torch.arange(2 * 30.0).reshape(2, 5, 6).repeat(8, 1, 1)
    flip = Distillation(mixup=0, noise=0, augment="flip")
    found = vary(x, Reads(kind="image"), flip, random())
    kinds = {
        "same" if torch.equal(one, other) else "mirror"
        for one, other in zip(found, x, strict=True)
        if torch.equal(one, other) or torch.equal(one, other.flip(1))
    }
    assert kinds == {"same", "mirror"}
    assert all(
        torch.equal(a, b) or torch.equal(a, b.flip(1)) for a, b in zip(found, x, strict=True)
    )


def rows() -> Tensor:
    return torch.tensor(
        [[10.0, math.nan, 0.0, -1.0], [90.0, 0.5, 2.0, 1.0], [math.nan, -0.5, 1.0, 0.0]]
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), mixup=st.floats(0, 1), noise=st.floats(0, 1))
def test_missing_numbers_and_categories_stay(seed: int, mixup: float, noise: float) -> None:
    x = rows()
    found = vary(x, TABLE, Distillation(mixup=mixup, noise=noise), random(seed))
    assert torch.equal(found.isnan(), x.isnan())
    assert torch.equal(found[:, 2:], x[:, 2:])


def test_numbers_of_a_table_are_blended_and_noised_by_their_range() -> None:
    x = torch.tensor([[0.0, 1.0, 2.0]] * 400)
    noisy = vary(x, TABLE, Distillation(mixup=0, noise=0.1), random())
    spread = (noisy - x).std(0)
    # the deviation of a record is uniform up to a tenth of the range: its root mean square
    assert spread[0].item() == pytest.approx(100 * 0.1 / math.sqrt(3), rel=0.15)
    assert spread[1].item() == pytest.approx(2 * 0.1 / math.sqrt(3), rel=0.15)
    two = torch.tensor([[0.0, 0.0, 1.0], [10.0, 1.0, 2.0]])
    blended = vary(two, TABLE, Distillation(mixup=1, noise=0), random())
    assert (0 < blended[0, 0] < 5) and (5 < blended[1, 0] < 10)


@pytest.mark.parametrize("kind", ["text", "other"])
def test_token_numbers_stay(kind: str) -> None:
    x = torch.tensor([[101.0, 7.0, 102.0, 0.0]])
    assert torch.equal(vary(x, Reads(kind=kind), Distillation(), random()), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("reads", [TABLE, Reads(kind="text")])
def test_only_images_are_shifted(reads: Reads) -> None:
    with pytest.raises(InvalidInput, match="shifted"):
        vary(rows(), reads, Distillation(augment="shift"), random())


def test_a_plan_says_what_is_read() -> None:
    bounds = {"age": (0.0, 100.0), "dose": (-1.0, 1.0)}
    ref = ModelRef(name="tabular:linear", task="classification", classes=("a", "b"), bounds=bounds)
    assert reads_of(ref) == TABLE
    text = ModelRef(name="text:hashed", task="classification", classes=("a", "b"))
    assert reads_of(text) == Reads(kind="text")
