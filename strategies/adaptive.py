"""Server Adam on the mean update: FedAdam."""

from __future__ import annotations

import numpy as np

from ..core.layout import Layout, Vector
from .base import Average, State, WeightedSum


class FedAdam:
    """m <- b1 m + (1-b1) D; v <- b2 v + (1-b2) D^2; x <- x + lr m / (sqrt(v) + tau).

    D is the weighted mean update; v starts at tau^2 and there is no bias correction, as in
    Reddi et al., ICLR 2021, Algorithm 2, https://arxiv.org/abs/2003.00295.
    """

    def __init__(
        self,
        *,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
        average: Average,
    ) -> None:
        self._learning_rate, self._beta1, self._beta2 = server_learning_rate, beta1, beta2
        self._tau, self._average = tau, average

    def init(self, layout: Layout) -> State:
        """Return zero first moments, second moments of tau squared, and empty sums."""
        moments: State = {
            "m": np.zeros(layout.size, dtype=np.float64),
            "v": np.full(layout.size, self._tau**2, dtype=np.float64),
        }
        return moments | WeightedSum.empty(layout) | self._average.empty(layout)

    def fold(self, state: State, update: Vector, weight: float) -> State:
        """Add ``weight * update`` to the sum."""
        return WeightedSum.add(state, update, weight)

    def finish(self, state: State, base: Vector) -> tuple[Vector, State]:
        """Return the vector after one Adam step, and a state with an empty sum."""
        delta = WeightedSum.mean(state)
        m = self._beta1 * state["m"] + (1 - self._beta1) * delta
        v = self._beta2 * state["v"] + (1 - self._beta2) * delta**2
        step = self._learning_rate * m / (np.sqrt(v) + self._tau)
        vector = (base.astype(np.float64) + step).astype(np.float32)
        state = self._average.add(state | {"m": m, "v": v}, vector)
        return vector, state | {"sum": np.zeros_like(state["sum"]), "weight": np.zeros(1)}
