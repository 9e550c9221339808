"""Varied copies: what they look like, and that a unit still moves the sum by at most C."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from collegium.core.errors import InvalidInput
from collegium.core.mechanism import CLIP_SLACK, MechanismSpec
from collegium.privacy.augment import Augment, branch
from collegium.privacy.clipping import Clipper, make_clipper
from collegium.privacy.device_noise import normals
from collegium.privacy.noise import NoiseStream, SeededNoise
from collegium.privacy.sampling import sample
from collegium.privacy.step import private_gradient
from collegium.privacy.units import Units

Make = Callable[..., MechanismSpec]
torch.set_num_threads(1)
RNG = np.random.default_rng(0)
X = RNG.integers(0, 17, (12, 9, 8, 1)).astype(np.uint8)
Y = RNG.integers(0, 3, 12).astype(np.int64)
OWNERS = np.array([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5])


def loss(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output, y, reduction="none")


def model() -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(9, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    return net.train()


def clipper(net: nn.Module) -> Clipper:
    return make_clipper(net, list(net.parameters()), loss)


def stream(step: int = 0) -> NoiseStream:
    return SeededNoise(1).stream(site="a", round=1, step=step)


def slow(kind: str, image: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """One copy of one image, pixel by pixel."""
    height, width = image.shape[:2]
    found = np.empty_like(image)
    down = int(np.ceil(draw[0] * 3)) - 2 if kind != "flip" else 0  # 8 and 9 pixels: one each way
    right = int(np.ceil(draw[1] * 3)) - 2 if kind != "flip" else 0
    for i in range(height):
        for j in range(width):
            row, column = min(max(i - down, 0), height - 1), min(max(j - right, 0), width - 1)
            mirrored = kind != "shift" and draw[2] > 0.5
            found[i, j] = image[row, width - 1 - column if mirrored else column]
    return found


@pytest.mark.parametrize("kind", ["shift", "flip", "flip-shift"])
def test_copies_are_moved_and_mirrored_pixel_by_pixel(kind: str) -> None:
    augment = Augment(kind=kind, copies=5)  # type: ignore[arg-type]
    draws = augment.draw(stream(), np.arange(len(X)))
    found, labels = augment.vary(torch.from_numpy(X), torch.from_numpy(Y), draws)
    expected = [slow(kind, X[i], draws[i, k]) for i in range(len(X)) for k in range(5)]
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(labels.numpy(), np.repeat(Y, 5))


def test_a_mask_moves_with_its_image_and_grey_images_need_no_channel() -> None:
    augment = Augment(kind="flip-shift", copies=3)
    images = torch.from_numpy(X[..., 0].astype(np.int64))
    x, masks = augment.vary(images, images, augment.draw(stream(), np.arange(len(X))))
    assert x.shape == (36, 9, 8) and torch.equal(x, masks)


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 40), places=st.integers(0, 10**6))
def test_every_move_is_within_reach_and_equally_likely(side: int, places: int) -> None:
    reach = max(1, side // 8)
    moves = 2 * reach + 1
    nth = places % moves
    image = torch.arange(side, dtype=torch.float32).reshape(1, side, 1).expand(1, side, side)
    for uniform in ((nth + 1e-9) / moves, (nth + 0.5) / moves, (nth + 1) / moves - 1e-12):
        draws = np.array([[[uniform, 1.0, 0.0]]])
        found, _ = Augment(kind="shift").vary(image, torch.zeros(1), draws)
        expected = (np.arange(side) - (nth - reach)).clip(0, side - 1)
        np.testing.assert_array_equal(found[0, :, 0].numpy(), expected)


def test_records_that_are_no_images_are_refused() -> None:
    augment = Augment(kind="shift")
    with pytest.raises(InvalidInput, match="cannot be shifted"):
        augment.vary(torch.zeros(2, 5), torch.zeros(2), augment.draw(stream(), np.arange(2)))


def mean_gradient(net: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    found = torch.autograd.grad(loss(net(x), y).mean(), list(net.parameters()))
    return torch.cat([part.reshape(-1) for part in found]).double().numpy()


@pytest.mark.parametrize("owners", [None, OWNERS])
@pytest.mark.parametrize("clip", [0.05, 1e6])
@pytest.mark.parametrize("micro_batch", [0, 7])
def test_the_mean_over_a_units_copies_is_clipped_once(
    make_spec: Make, owners: np.ndarray | None, clip: float, micro_batch: int
) -> None:
    """Against plain autograd on the mean loss of all copies of all records of a unit."""
    spec = make_spec(noise_multiplier=0.0, clip_norm=clip, sampling_rate=1.0, normaliser=1.0)
    net, augment = model(), Augment(kind="flip-shift", copies=4)
    units = None if owners is None else Units.of(owners)
    found = private_gradient(
        spec, clipper(net), X, Y, stream(), units=units, augment=augment, micro_batch=micro_batch
    )
    draws = augment.draw(branch(stream()), np.arange(len(X)))
    expected = np.zeros_like(found)
    for unit in range(len(X)) if owners is None else sorted(set(owners)):
        rows = np.array([unit]) if owners is None else np.flatnonzero(owners == unit)
        parts = augment.vary(
            torch.from_numpy(X[rows].astype(np.float32)), torch.from_numpy(Y[rows]), draws[rows]
        )
        gradient = mean_gradient(net, *parts)
        expected += gradient * min(1.0, clip / float(np.linalg.norm(gradient)))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("copies", [1, 4, 16])
def test_one_unit_moves_the_sum_by_at_most_c(make_spec: Make, copies: int) -> None:
    spec = make_spec(noise_multiplier=0.0, clip_norm=0.03, sampling_rate=1.0, normaliser=1.0)
    augment, engine = Augment(kind="flip-shift", copies=copies), clipper(model())
    for row in range(len(X)):
        part = slice(row, row + 1)
        moved = private_gradient(spec, engine, X[part], Y[part], stream(row), augment=augment)
        length = float(np.linalg.norm(moved))
        assert 0.03 * 0.99 < length <= 0.03 * (1 + CLIP_SLACK)  # the bound binds, and holds


def test_without_augmentation_the_step_is_what_it_always_was(make_spec: Make) -> None:
    """The plain step, written out: sample, clip, add noise, divide; byte for byte."""
    spec, net = make_spec(sampling_rate=0.6), model()
    found = private_gradient(spec, clipper(net), X, Y, stream())
    plain = stream()
    rows = sample(spec, plain, len(X))
    clean = clipper(net).clipped_sum(
        torch.from_numpy(X[rows].astype(np.float32)), torch.from_numpy(Y[rows]), spec.clip_norm
    )
    noise = normals(plain, len(clean), torch.device("cpu"))
    assert found.tobytes() == ((clean + noise * spec.noise_std) / spec.normaliser).tobytes()


class Seen:
    """An observer that keeps the batch."""

    def __init__(self) -> None:
        self.units, self.batch = 0, np.zeros(0, dtype=np.intp)

    def observe(self, spec: object, **values: object) -> None:
        self.units, self.batch = values["units"], values["batch"]  # type: ignore[assignment]


def test_a_replay_gives_the_same_bytes_and_evidence_counts_units_not_copies(
    make_spec: Make,
) -> None:
    spec, augment, seen = make_spec(sampling_rate=0.6), Augment(kind="shift", copies=3), Seen()
    found = [
        private_gradient(
            spec, clipper(model()), X, Y, stream(step), augment=augment, observer=seen
        ).tobytes()
        for step in (0, 0, 1, 0)
    ]
    assert found[0] == found[1] == found[3] != found[2]
    again = stream()
    branch(again)
    assert seen.units == len(X)
    np.testing.assert_array_equal(seen.batch, sample(spec, again, len(X)))


def test_a_neighbouring_list_of_records_moves_the_sum_by_at_most_c(make_spec: Make) -> None:
    """One more record, the same stream: nobody else's variants change, sampled or not."""
    spec = make_spec(noise_multiplier=0.0, clip_norm=0.03, sampling_rate=1.0, normaliser=1.0)
    augment, engine = Augment(kind="flip-shift", copies=4), clipper(model())
    for count in range(len(X)):
        more, fewer = (
            private_gradient(spec, engine, X[:n], Y[:n], stream(), augment=augment)
            for n in (count + 1, count)
        )
        assert 0.02 < np.linalg.norm(more - fewer) <= 0.03 * (1 + 10 * CLIP_SLACK)


@given(st.sets(st.integers(0, 9000), min_size=1, max_size=20))
def test_what_is_drawn_for_a_record_follows_from_its_place_alone(places: set[int]) -> None:
    augment = Augment(kind="shift", copies=2)
    whole = augment.draw(branch(stream()), np.arange(9001))
    rows = np.array(sorted(places, key=hash))
    np.testing.assert_array_equal(augment.draw(branch(stream()), rows), whole[rows])
    assert len(np.unique(whole)) == whole.size and whole.min() > 0 and whole.max() <= 1


def test_an_empty_batch_is_a_step_of_noise_alone(make_spec: Make) -> None:
    spec = make_spec(noise_multiplier=0.0, sampling_rate=1e-12)
    found = private_gradient(
        spec, clipper(model()), X, Y, stream(), augment=Augment(kind="flip", copies=2)
    )
    assert not found.any()
