"""Local steps: what leaves is the moved vector alone; noise per step; the model stays in place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collegium.client.train import Trainer
from collegium.core.plan import Plan
from collegium.models import registry
from collegium.privacy.derive import mechanism
from collegium.privacy.noise import SeededNoise, SystemNoise

MakePlan = Callable[..., Plan]


def parts(plan: Plan, make_records: Any, sigma: float) -> tuple[Trainer, Any, Any]:
    trainer = Trainer(registry.build(plan.model), plan)
    spec = mechanism(
        plan, plan.sites[0], noise_multiplier=sigma, trainable_digest=trainer.layout.digest
    )
    return trainer, make_records(plan)["s0"], spec


def test_two_steps_by_hand(make_plan: MakePlan, make_records: Any) -> None:
    """Full batches without noise: two clipped softmax-regression steps in plain NumPy."""
    plan = make_plan(
        1, local_steps=2, learning_rate=0.5, privacy={"sampling_rate": 1.0, "clip_norm": 0.6}
    )
    trainer, data, spec = parts(plan, make_records, 0.0)
    found = trainer.train(trainer.open_vector, data, spec, SeededNoise(0), site="s0", round=1)
    x = np.clip(data.train_x.astype(np.float64), -1, 1)
    weights, bias = np.zeros((2, 3)), np.zeros(2)
    for _ in range(2):
        logits = x @ weights.T + bias
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        residual = p - np.eye(2)[data.train_y]
        rows = np.concatenate(
            [(residual[:, :, None] * x[:, None, :]).reshape(len(x), -1), residual], axis=1
        )
        rows *= np.minimum(1, 0.6 / np.linalg.norm(rows, axis=1))[:, None]
        step = 0.5 * rows.sum(axis=0) / 40.0  # the plan's normaliser: rate 1 x public_records 40
        weights -= step[:6].reshape(2, 3)
        bias -= step[6:]
    assert trainer.layout.names == ("head.weight", "head.bias")
    np.testing.assert_allclose(found, np.concatenate([weights.reshape(-1), bias]), atol=1e-6)


def test_each_step_and_round_and_site_draws_its_own_noise(
    make_plan: MakePlan, make_records: Any
) -> None:
    plan = make_plan(1, local_steps=1)
    trainer, data, spec = parts(plan, make_records, 50.0)
    base = trainer.open_vector
    draws = [
        trainer.train(base, data, spec, SeededNoise(1), site=site, round=round).tobytes()
        for site in ("s0", "s1")
        for round in (1, 2)
    ]
    assert len(set(draws)) == 4
    again = trainer.train(base, data, spec, SeededNoise(1), site="s0", round=1)
    assert again.tobytes() == draws[0]
    real = [
        trainer.train(base, data, spec, SystemNoise(), site="s0", round=1).tobytes()
        for _ in range(2)
    ]
    assert len(set(real)) == 2


def test_noise_adds_up_over_steps(make_plan: MakePlan, make_records: Any) -> None:
    """K steps carry K times the variance: noise is per step, not per round."""
    variances = []
    for steps in (1, 4):
        plan = make_plan(1, local_steps=steps)
        trainer, data, spec = parts(plan, make_records, 50.0)
        rows = [
            trainer.train(trainer.open_vector, data, spec, SeededNoise(3), site="a", round=n)
            for n in range(150)
        ]
        variances.append(float(np.var(np.array(rows))))
        trainer.load(np.zeros(8, dtype=np.float32))
    assert variances[1] / variances[0] == pytest.approx(4.0, rel=0.35)


def test_the_update_is_relative_to_the_base(make_plan: MakePlan, make_records: Any) -> None:
    plan = make_plan(1)
    trainer, data, spec = parts(plan, make_records, 0.0)
    base = np.linspace(-2, 2, 8).astype(np.float32)
    first = trainer.train(base, data, spec, SeededNoise(0), site="s0", round=1)
    assert np.linalg.norm(first) < 1.5
    trainer.train(base * 3, data, spec, SeededNoise(0), site="s0", round=2)
    again = trainer.train(base, data, spec, SeededNoise(0), site="s0", round=1)
    np.testing.assert_array_equal(first, again)  # nothing of another round is remembered


def test_only_the_declared_parameters_move(make_plan: MakePlan, make_records: Any) -> None:
    plan = make_plan(1)
    trainer, data, spec = parts(plan, make_records, 1.0)
    model = trainer.load(trainer.open_vector)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train(trainer.open_vector, data, spec, SeededNoise(0), site="s0", round=1)
    for name, value in model.state_dict().items():
        if name not in trainer.layout.names:
            assert bool((value == before[name]).all())


def test_evaluation(make_plan: MakePlan, make_records: Any) -> None:
    plan = make_plan(1)
    trainer, data, _ = parts(plan, make_records, 1.0)
    perfect = np.zeros(8, dtype=np.float32)
    perfect[0], perfect[3] = -10, 10  # class 1 where the first feature is positive
    assert trainer.evaluate(perfect, data)["accuracy"] == 1.0
    empty = make_records(plan, test=0)["s0"]
    assert trainer.evaluate(perfect, empty) == {}
