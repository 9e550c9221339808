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
    labels: NDArray[np.int64], capacities: Sequence[int], alpha: float, rng: np.random.Generator
) -> list[Indices]:
    """Return one index array per site: per class, shares drawn from Dirichlet(alpha).

    Label skew after Hsu et al. 2019 (arXiv:1909.06335). A site never receives more than its
    public capacity: what is above it moves, at random, to the sites with room left. Raises
    ``ValueError`` when the capacities together are too small.
    """
    parts: list[list[np.intp]] = [[] for _ in capacities]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet([alpha] * len(capacities))
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, chosen in zip(parts, np.split(members, cuts), strict=True):
            part.extend(chosen)
    return _within(parts, capacities, rng)


def iid(
    labels: NDArray[np.int64], capacities: Sequence[int], rng: np.random.Generator
) -> list[Indices]:
    """Return one index array per site: a random cut in proportion to the capacities."""
    order = rng.permutation(len(labels))
    cuts = (np.cumsum(capacities)[:-1] / sum(capacities) * len(labels)).astype(int)
    return _within([list(part) for part in np.split(order, cuts)], capacities, rng)


def _within(
    parts: list[list[np.intp]], capacities: Sequence[int], rng: np.random.Generator
) -> list[Indices]:
    surplus: list[np.intp] = []
    for part, capacity in zip(parts, capacities, strict=True):
        rng.shuffle(part)
        surplus.extend(part[capacity:])
        del part[capacity:]
    for part, capacity in zip(parts, capacities, strict=True):
        room = min(capacity - len(part), len(surplus))
        part.extend(surplus[:room])
        del surplus[:room]
    if surplus:
        raise ValueError(f"{len(surplus)} records fit into no site")
    return [np.sort(np.asarray(part, dtype=np.intp)) for part in parts]
