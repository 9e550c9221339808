"""FedAdam against the paper's recursion in plain Python."""

import numpy as np
import pytest

from collegium.core.layout import Layout
from collegium.strategies.adaptive import FedAdam
from collegium.strategies.base import IterateAverage

LAYOUT = Layout.of({"w": (2,)})


def test_recursion_of_the_paper() -> None:
    """Reddi et al. 2021, Algorithm 2, one coordinate at a time; weights 1 and 3."""
    rate, beta1, beta2, tau = 0.1, 0.9, 0.99, 1e-3
    strategy = FedAdam(
        server_learning_rate=rate,
        beta1=beta1,
        beta2=beta2,
        tau=tau,
        average=IterateAverage(5, 0.0),
    )
    state, base = strategy.init(LAYOUT), np.array([1.0, -2.0], dtype=np.float32)
    x, m, v = [1.0, -2.0], [0.0, 0.0], [tau**2, tau**2]
    rng = np.random.default_rng(0)
    for _ in range(5):
        first, second = rng.normal(size=(2, 2)).astype(np.float32)
        state = strategy.fold(strategy.fold(state, first, 1.0), second, 3.0)
        base, state = strategy.finish(state, base)
        for place in range(2):
            delta = (float(first[place]) + 3.0 * float(second[place])) / 4.0
            m[place] = beta1 * m[place] + (1 - beta1) * delta
            v[place] = beta2 * v[place] + (1 - beta2) * delta**2
            x[place] += rate * m[place] / (v[place] ** 0.5 + tau)
    assert base.dtype == np.float32
    assert base == pytest.approx(x, rel=1e-5)
    assert float(state["weight"][0]) == 0.0


def test_first_step_by_hand() -> None:
    """beta1 = beta2 = 0: m = D, v = D**2, so each coordinate moves by lr D / (|D| + tau)."""
    strategy = FedAdam(
        server_learning_rate=0.5, beta1=0.0, beta2=0.0, tau=1.0, average=IterateAverage(1, 0.0)
    )
    state = strategy.fold(strategy.init(LAYOUT), np.array([1, -3], dtype=np.float32), 2.0)
    after, _ = strategy.finish(state, np.zeros(2, dtype=np.float32))
    assert after == pytest.approx([0.25, -0.375])
