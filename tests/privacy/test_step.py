"""One private step against its definition: what is added, divided by what, and nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from collegium.core.mechanism import CLIP_SLACK, MechanismSpec
from collegium.core.plan import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.models.task_classification import cross_entropy
from collegium.privacy.clipping import Clipper, make_clipper
from collegium.privacy.noise import SeededNoise, SystemNoise
from collegium.privacy.step import private_gradient

Make = Callable[..., MechanismSpec]
torch.set_num_threads(1)
TABLE = ModelRef(
    name="tabular:linear",
    task="classification",
    classes=("a", "b"),
    bounds=dict.fromkeys("uvw", (-1.0, 1.0)),
)
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (30, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
SIZE = 8  # 3 features x 2 classes + 2


class Recorder:
    """A clipper that keeps what it was given and sums to zero."""

    def __init__(self, size: int = SIZE) -> None:
        self.size, self.batches, self.clips = size, [], []  # type: ignore[var-annotated]

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, clip_norm: float, *, units: object = None
    ) -> np.ndarray:
        assert units is None
        self.batches.append(len(x))
        self.clips.append(clip_norm)
        return np.zeros(self.size)


def clipper() -> Clipper:
    model = registry.build(TABLE).train()
    chosen = list(select_trainable(model, "head").values())
    return make_clipper(model, chosen, cross_entropy)


def stream(step: int = 0, round: int = 1):  # type: ignore[no-untyped-def]
    return SeededNoise(1).stream(site="a", round=round, step=step)


def slow_gradient(spec: MechanismSpec, chosen: np.ndarray) -> np.ndarray:
    """Softmax regression at zero by hand: g = (1/2 - onehot) x (x, 1), clipped, summed, divided."""
    total = np.zeros(SIZE)
    for i in chosen:
        residual = np.full(2, 0.5) - np.eye(2)[Y[i]]
        row = np.concatenate([np.outer(residual, X[i]).reshape(-1), residual])
        total += row * min(1.0, spec.clip_norm / float(np.linalg.norm(row)))
    return total / spec.normaliser


@pytest.mark.parametrize("clip", [0.2, 0.7, 50.0])
def test_without_noise_it_is_the_clipped_mean_by_hand(make_spec: Make, clip: float) -> None:
    spec = make_spec(noise_multiplier=0.0, clip_norm=clip, sampling_rate=0.5, normaliser=20.0)
    found = private_gradient(spec, clipper(), X, Y, stream())
    chosen = np.flatnonzero(stream().uniform(len(X)) <= 0.5)
    np.testing.assert_allclose(found, slow_gradient(spec, chosen), rtol=1e-5, atol=1e-7)


def test_noise_is_added_once_with_the_right_size(make_spec: Make) -> None:
    """Over many steps and coordinates the variance is (sigma C / normaliser)^2."""
    spec = make_spec(noise_multiplier=1.5, clip_norm=0.4, normaliser=3.0, sampling_rate=0.5)
    recorder = Recorder(2000)
    rows = np.array([private_gradient(spec, recorder, X, Y, stream(step)) for step in range(100)])
    expected = (1.5 * 0.4 / 3.0) ** 2
    assert rows.var() == pytest.approx(expected, rel=4 * (2 / rows.size) ** 0.5)
    assert abs(rows.mean()) < 4 * expected**0.5 / rows.size**0.5
    assert set(recorder.clips) == {0.4}


def test_noise_does_not_depend_on_chunks(make_spec: Make) -> None:
    """Micro-batches add up before the noise: it is drawn once per logical batch."""
    spec = make_spec(noise_multiplier=1.0, sampling_rate=1.0)
    model = registry.build(TABLE).train()
    chosen = list(select_trainable(model, "head").values())
    found = [
        private_gradient(
            spec, make_clipper(model, chosen, cross_entropy, chunk=chunk), X, Y, stream()
        )
        for chunk in (1, 7, 128)
    ]
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)


def test_an_empty_batch_is_pure_noise(make_spec: Make) -> None:
    spec = make_spec(noise_multiplier=2.0, sampling_rate=1e-12, normaliser=4.0)
    found = private_gradient(spec, clipper(), X, Y, stream())
    again = stream()
    again.uniform(len(X))
    np.testing.assert_allclose(found, again.normal(SIZE) * 2.0 * (1 + CLIP_SLACK) / 4.0, rtol=1e-14)


def test_no_records_at_all(make_spec: Make) -> None:
    found = private_gradient(make_spec(), clipper(), X[:0], Y[:0], stream())
    assert found.shape == (SIZE,)
    assert found.any()


def test_every_constant_is_the_plans_not_the_datas(make_spec: Make) -> None:
    """N and N + 1 records: with the same batch the same bytes; nothing divides by a count."""
    spec = make_spec(noise_multiplier=0.0, sampling_rate=1.0, normaliser=7.0)
    whole = private_gradient(spec, clipper(), X, Y, stream()) * 7.0
    twice = private_gradient(
        spec, clipper(), np.concatenate([X, X]), np.concatenate([Y, Y]), stream()
    )
    np.testing.assert_allclose(twice * 7.0, 2 * whole, rtol=1e-6)


def test_sampled_batches_follow_the_rate(make_spec: Make) -> None:
    recorder = Recorder()
    spec = make_spec(sampling_rate=0.3)
    for step in range(2000):
        private_gradient(spec, recorder, X, Y, stream(step))
    mean = float(np.mean(recorder.batches))
    assert abs(mean - 9.0) < 4 * (30 * 0.3 * 0.7 / 2000) ** 0.5
    assert len(set(recorder.batches)) > 8  # never a fixed size


def test_global_seeds_do_not_repeat_a_real_step(make_spec: Make) -> None:
    spec, found = make_spec(noise_multiplier=1.0), []
    for _ in range(2):
        np.random.seed(0)
        torch.manual_seed(0)
        source = SystemNoise().stream(site="a", round=1, step=0)
        found.append(private_gradient(spec, Recorder(10_000), X, Y, source))
    assert abs(np.corrcoef(*found)[0, 1]) < 4 / 10_000**0.5
