"""How one data set becomes the records of several sites, reproducibly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def holdout(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Return (kept, held out) indices, each class cut at ``share`` (rounded down)."""
    held: list[Indices] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held.append(members[: int(len(members) * share)])
    out = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.intp)
    return np.setdiff1d(np.arange(len(labels)), out), out


def dirichlet(
    labels: NDArray[np.int64],
    capacities: Sequence[int],
    alpha: float,
    rng: np.random.Generator,
    *,
    sizes: NDArray[np.intp] | None = None,
) -> list[Indices]:
    """Return one index array per site: per class, shares drawn from Dirichlet(alpha).

    Label skew after Hsu et al. 2019 (arXiv:1909.06335). A site never receives more than its
    public capacity: what is above it moves, at random, to the sites with room left. ``sizes``
    (n,) is how much of a capacity each takes, 1 by default. Raises ``ValueError`` when the
    capacities together are too small.
    """
    parts: list[list[np.intp]] = [[] for _ in capacities]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet([alpha] * len(capacities))
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, chosen in zip(parts, np.split(members, cuts), strict=True):
            part.extend(chosen)
    return _within(parts, capacities, rng, sizes)


def iid(
    labels: NDArray[np.int64],
    capacities: Sequence[int],
    rng: np.random.Generator,
    *,
    sizes: NDArray[np.intp] | None = None,
) -> list[Indices]:
    """Return one index array per site: a random cut in proportion to the capacities.

    ``sizes`` and errors as in ``dirichlet``.
    """
    order = rng.permutation(len(labels))
    cuts = (np.cumsum(capacities)[:-1] / sum(capacities) * len(labels)).astype(int)
    parts = [list(part) for part in np.split(order, cuts)]
    return _within(parts, capacities, rng, sizes)


def _within(
    parts: Sequence[list[np.intp]],
    capacities: Sequence[int],
    rng: np.random.Generator,
    sizes: NDArray[np.intp] | None,
) -> list[Indices]:
    count = sum(len(part) for part in parts)
    taking = np.ones(count, dtype=np.intp) if sizes is None else sizes
    kept: list[list[np.intp]] = []
    surplus: list[np.intp] = []
    for part, capacity in zip(parts, capacities, strict=True):
        rng.shuffle(part)
        inside, over = _fitting(part, capacity, taking)
        kept.append(inside)
        surplus += over
    surplus.sort(key=lambda each: -taking[each])  # the largest first, while there is room
    for own, capacity in zip(kept, capacities, strict=True):
        inside, surplus = _fitting(surplus, capacity - int(taking[own].sum()), taking)
        own.extend(inside)
    if surplus:
        raise ValueError(f"{taking[surplus].sum()} records fit into no site")
    return [np.sort(np.asarray(part, dtype=np.intp)) for part in kept]


def _fitting(
    waiting: Sequence[np.intp], room: int, taking: NDArray[np.intp]
) -> tuple[list[np.intp], list[np.intp]]:
    """Return those that find room, each in its turn, and the others."""
    inside: list[np.intp] = []
    over: list[np.intp] = []
    for each in waiting:
        if taking[each] <= room:
            room -= int(taking[each])
            inside.append(each)
        else:
            over.append(each)
    return inside, over
