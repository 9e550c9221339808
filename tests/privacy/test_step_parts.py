"""A step in parts: the sum of the whole batch, whole units, never more records than allowed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.mechanism import MechanismSpec
from collegium.core.plan import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.privacy.augment import Augment
from collegium.privacy.clipping import Clipper, make_clipper
from collegium.privacy.noise import SeededNoise
from collegium.privacy.step import private_gradient
from collegium.privacy.units import Units

Make = Callable[..., MechanismSpec]
torch.set_num_threads(1)
DIGITS = ModelRef(
    name="collegium:glyph-cnn",
    task="classification",
    trainable="all",
    classes=tuple("0123456789"),
)
RNG = np.random.default_rng(3)
X = RNG.integers(0, 17, (60, 8, 8)).astype(np.float32)
Y = RNG.integers(0, 10, 60).astype(np.int64)
OWNERS = np.sort(RNG.integers(0, 17, 60))


def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(output, y, reduction="none")


def clipper(chunk: int) -> Clipper:
    torch.manual_seed(0)
    model = registry.build(DIGITS).train()
    torch.nn.init.normal_(model.get_parameter("head.weight"))
    return make_clipper(model, list(select_trainable(model, "all").values()), loss, chunk=chunk)


def one_step(spec: MechanismSpec, most: int, owners: np.ndarray | None) -> np.ndarray:
    stream = SeededNoise(1).stream(site="a", round=1, step=0)
    units = None if owners is None else Units.of(owners)
    engine = clipper(most or 128)
    return private_gradient(spec, engine, X, Y, stream, units=units, micro_batch=most)


@pytest.mark.parametrize("owners", [None, OWNERS], ids=["records", "patients"])
@pytest.mark.parametrize("clip", [0.1, 3.0])
def test_parts_add_up_to_the_whole(make_spec: Make, owners: object, clip: float) -> None:
    spec = make_spec(noise_multiplier=0.5, clip_norm=clip, sampling_rate=0.8)
    whole = one_step(spec, 0, owners)  # type: ignore[arg-type]
    for most in (1, 7, 25):
        found = one_step(spec, most, owners)  # type: ignore[arg-type]
        assert np.linalg.norm(found - whole) <= 1e-6 * np.linalg.norm(whole)


class Recorder:
    """A clipper that keeps what each call was given, and sums the first pixel."""

    def __init__(self) -> None:
        self.calls: list[tuple[np.ndarray, np.ndarray | None]] = []

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, clip_norm: float, *, units: object = None
    ) -> np.ndarray:
        del y, clip_norm
        self.calls.append((x.numpy()[:, 0, 0].copy(), units))  # type: ignore[arg-type]
        return np.array([float(x.sum())])

    def per_unit_norms(self, x: object, y: object, *, units: object = None) -> np.ndarray:
        raise NotImplementedError


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), max_size=12),
    most=st.integers(1, 12),
    copies=st.integers(1, 4),
)
def test_units_stay_whole_and_no_part_is_larger_than_it_must_be(
    make_spec: Make, sizes: list[int], most: int, copies: int
) -> None:
    owners = np.repeat(np.arange(len(sizes)), sizes)
    x = np.repeat(owners, 4).reshape(len(owners), 2, 2).astype(np.float32)  # a record is its unit
    spec = make_spec(noise_multiplier=0.0, sampling_rate=1.0)
    seen, augment = Recorder(), Augment(kind="flip", copies=copies)
    private_gradient(
        spec, seen, x, owners, SeededNoise(0).stream(site="a", round=1, step=0),
        units=Units.of(owners), augment=augment, micro_batch=most,
    )  # fmt: skip
    given_units = [set(values.tolist()) for values, _ in seen.calls]
    assert sum(len(values) for values, _ in seen.calls) == len(owners) * copies
    assert sum(map(len, given_units)) == len(sizes)  # each unit is in one part alone
    for values, units in seen.calls:
        assert units is not None
        np.testing.assert_array_equal(np.unique(values, return_inverse=True)[1], units)
        assert len(values) <= max(most, copies) or len(set(values.tolist())) == 1


def test_records_pass_in_parts_of_the_most_that_is_allowed(make_spec: Make) -> None:
    spec, seen = make_spec(noise_multiplier=0.0, sampling_rate=1.0), Recorder()
    stream = SeededNoise(0).stream(site="a", round=1, step=0)
    private_gradient(spec, seen, X, Y, stream, micro_batch=25)
    assert [len(values) for values, _ in seen.calls] == [25, 25, 10]
