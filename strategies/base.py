"""What a strategy is: init once, fold each admitted update, finish each round."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.layout import Layout, Vector

State = dict[str, NDArray[Any]]
"""Everything a strategy remembers, as named arrays, stored with every round.

The key ``released`` (d,) float32, when present, is the model to release in place of the last
iterate.
"""


class Strategy(Protocol):
    """One algorithm over serialisable state; admitted updates come in roster order."""

    def init(self, layout: Layout) -> State:
        """Return the state before the first round."""
        ...

    def fold(self, state: State, update: Vector, weight: float) -> State:
        """Return the state with one admitted update (d,) taken in."""
        ...

    def finish(self, state: State, base: Vector) -> tuple[Vector, State]:
        """Return the next global vector (d,) and the state for the next round."""
        ...


class WeightedSum:
    """The weighted mean of the updates of one round, O(d) memory, float64."""

    @staticmethod
    def empty(layout: Layout) -> State:
        """Return a sum of nothing."""
        return {"sum": np.zeros(layout.size, dtype=np.float64), "weight": np.zeros(1)}

    @staticmethod
    def add(state: State, update: Vector, weight: float) -> State:
        """Return the state with ``weight * update`` added."""
        return state | {
            "sum": state["sum"] + weight * update.astype(np.float64),
            "weight": state["weight"] + weight,
        }

    @staticmethod
    def mean(state: State) -> NDArray[np.float64]:
        """Return the weighted mean (d,)."""
        return state["sum"] / state["weight"]


class Average(Protocol):
    """What is released in place of the last iterate, over serialisable state."""

    @staticmethod
    def empty(layout: Layout) -> State:
        """Return an average of nothing."""
        ...

    def add(self, state: State, iterate: Vector) -> State:
        """Return the state after one more round that ended in ``iterate`` (d,)."""
        ...


class IterateAverage:
    """Average of the iterates of the last ``share`` of ``rounds`` (Polyak & Juditsky 1992).

    Averaging is post-processing of released iterates: it costs no privacy and takes out much
    of the noise of the last steps.
    """

    def __init__(self, rounds: int, share: float) -> None:
        self._first = rounds - int(rounds * share + 1e-9) + 1 if share > 0 else rounds + 1

    @staticmethod
    def empty(layout: Layout) -> State:
        """Return an average of nothing."""
        return {
            "round": np.zeros(1, dtype=np.int64),
            "average": np.zeros(layout.size, dtype=np.float64),
        }

    def add(self, state: State, iterate: Vector) -> State:
        """Return the state after one more round that ended in ``iterate`` (d,)."""
        done = int(state["round"][0]) + 1
        state = state | {"round": np.array([done], dtype=np.int64)}
        if done < self._first:
            return state
        average = state["average"] + (iterate - state["average"]) / (done - self._first + 1)
        return state | {"average": average, "released": average.astype(np.float32)}


class ExponentialAverage:
    """Exponential average of the rounds' iterates, corrected for its start at zero.

    a <- decay a + (1 - decay) x, released as a / (1 - decay^t) (Kingma & Ba 2015, section 3;
    used for DP-SGD by De et al. 2022, section 3.2). Post-processing of released iterates: it
    costs no privacy.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay

    @staticmethod
    def empty(layout: Layout) -> State:
        """Return an average of nothing."""
        return IterateAverage.empty(layout)

    def add(self, state: State, iterate: Vector) -> State:
        """Return the state after one more round that ended in ``iterate`` (d,)."""
        done = int(state["round"][0]) + 1
        average = self._decay * state["average"] + (1 - self._decay) * iterate.astype(np.float64)
        released = average / (1 - self._decay**done)
        return state | {
            "round": np.array([done], dtype=np.int64),
            "average": average,
            "released": released.astype(np.float32),
        }
