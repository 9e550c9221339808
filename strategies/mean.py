"""The weighted mean of site updates, taken as one step of the server's learning rate."""

from __future__ import annotations

import numpy as np

from ..core.layout import Layout, Vector
from .base import Average, State, WeightedSum


class Mean:
    """x <- x + server_learning_rate * sum_k w_k u_k / sum_k w_k, over the sites that answered.

    McMahan et al., AISTATS 2017, Algorithm 1, https://arxiv.org/abs/1602.05629, with the
    server learning rate of Reddi et al., ICLR 2021.
    """

    def __init__(self, *, server_learning_rate: float, average: Average) -> None:
        self._learning_rate, self._average = server_learning_rate, average

    def init(self, layout: Layout) -> State:
        """Return an empty sum and an empty average."""
        return WeightedSum.empty(layout) | self._average.empty(layout)

    def fold(self, state: State, update: Vector, weight: float) -> State:
        """Add ``weight * update`` to the sum."""
        return WeightedSum.add(state, update, weight)

    def finish(self, state: State, base: Vector) -> tuple[Vector, State]:
        """Return base + learning rate * mean, and a state with an empty sum."""
        step = self._learning_rate * WeightedSum.mean(state)
        vector = (base.astype(np.float64) + step).astype(np.float32)
        state = self._average.add(state, vector)
        return vector, state | {"sum": np.zeros_like(state["sum"]), "weight": np.zeros(1)}
