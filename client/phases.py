"""Which coordinates move in a round: the head alone while it warms up, then all that trains."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..privacy.clipping import CHUNK, Clipper, PerRecordLoss, make_clipper

HEAD = "head."


@dataclass(frozen=True, slots=True)
class Phase:
    """The clipper of the coordinates that move, and which those are: (d,); None: all."""

    clipper: Clipper
    live: NDArray[np.bool_] | None
    frozen: tuple[nn.Parameter, ...] = ()

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep what stands still out of the backward pass; it trains again afterwards."""
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.frozen:
                parameter.requires_grad_(True)


class Phases:
    """The phases of a plan with ``[training] warm_head``.

    In a round up to ``warm_head`` the gradient of the head alone is computed, clipped to the
    same C and noised with the same sigma C, on the head's coordinates; every other coordinate of
    the update is 0 whatever the records are. This is the very mechanism that is charged (same
    q, sigma and C) on a vector of fewer coordinates: the Gaussian mechanism's guarantee depends
    on C and sigma, not on how many coordinates there are, and appending constant zeros is
    post-processing. Which rounds and which coordinates is public: it follows from the plan.
    """

    def __init__(
        self,
        model: nn.Module,
        trainable: Mapping[str, nn.Parameter],
        loss: PerRecordLoss,
        *,
        warm_rounds: int = 0,
        chunk: int = CHUNK,
        autocast: torch.dtype | None = None,
    ) -> None:
        """``trainable`` are the parameters that train, by name, in layout order."""

        def clipper(parameters: list[nn.Parameter]) -> Clipper:
            return make_clipper(model, parameters, loss, chunk=chunk, autocast=autocast)

        self._all = Phase(clipper(list(trainable.values())), None)
        self._warm_rounds = warm_rounds
        self._warm = self._all
        live = live_coordinates(
            {name: value.numel() for name, value in trainable.items()}, warm_rounds, 1
        )
        if live is not None:
            head = [value for name, value in trainable.items() if name.startswith(HEAD)]
            rest = [value for name, value in trainable.items() if not name.startswith(HEAD)]
            self._warm = Phase(clipper(head), live, tuple(rest))

    def of(self, round: int) -> Phase:
        """Return the phase of a round, counted from 1."""
        return self._warm if round <= self._warm_rounds else self._all


def live_coordinates(
    sizes: Mapping[str, int], warm_rounds: int, round: int
) -> NDArray[np.bool_] | None:
    """Return which coordinates (d,) move in a round; None when all do.

    ``sizes`` are the trainable tensors' numbers of coordinates by name, in layout order.
    """
    if round > warm_rounds or all(name.startswith(HEAD) for name in sizes):
        return None
    each = [np.full(size, name.startswith(HEAD)) for name, size in sizes.items()]
    return np.concatenate(each)


def live_sizes(sizes: Mapping[str, int], warm_rounds: int, round: int) -> tuple[int, ...]:
    """Return the number of coordinates of each tensor that moves in a round, in layout order."""
    live = live_coordinates(sizes, warm_rounds, round) is None
    return tuple(size for name, size in sizes.items() if size and (live or name.startswith(HEAD)))
