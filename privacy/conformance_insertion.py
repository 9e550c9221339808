"""Does one unit move a step's sum by at most C? Canary inputs through the real model.

Nothing here is a record: inputs are drawn at random, and those are kept whose gradients press
hardest on each trainable layer. The code under test is whatever the site runs, passed in as
``Release``; the reference is plain autograd, one record at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.mechanism import CLIP_SLACK, Unit
from .conformance import Finding, checked, unexercised
from .noise import Floats

SENSITIVITY, NONFINITE = "clipping bound", "record without a finite gradient"
AGREEMENT, DIVISOR = "clipped sum", "divisor"

_AGREEMENT = 1e-4  # of the clipped sum with the oracle
_DIVISOR = 1e-6  # an update is float32
_ORDINARY = 4  # ordinary units beside the canary
_HARDEST = 0.5  # share of candidates that carry the least likely label

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], Inputs]
"""(rng, n) to (n, ...) random raw inputs of the model, over several scales."""
PerRecordLoss = Callable[[Tensor, Tensor], Tensor]


class Release(Protocol):
    """One step of the site's own code on these records, sampled for certain, without noise."""

    def __call__(
        self, x: Inputs, y: Labels, owners: NDArray[np.intp], clip_norm: float
    ) -> tuple[Floats, Floats]:
        """Return the (d,) sum of the clipped units, and what was released as the mean times the
        plan's normaliser (d,); ``owners`` (n,) says whose each record is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Inputs x (n, ...), y (n,) in units ``owners`` (n,), ascending from 0.

    The first ``count`` units hold a canary each: one for every trainable layer, then one that
    spans all; the others are ordinary. ``norms`` (units,) are the units' gradient norms and
    ``smallest`` that of the weakest trainable tensor under the spanning canary.
    """

    x: Inputs
    y: Labels
    owners: NDArray[np.intp]
    count: int
    norms: Floats
    smallest: float


class Oracle:
    """Plain autograd, record by record, on its own copy of the model; one gradient is held."""

    def __init__(self, model: nn.Module, names: Sequence[str], loss: PerRecordLoss) -> None:
        """``names`` are the trainable parameters in layout order."""
        self._model, self._loss = without_dropout(model).train(), loss
        self._parameters = [model.get_parameter(name) for name in names]
        self.layers = _layers(names)

    def gradient(self, x: Inputs, y: Labels) -> list[Floats]:
        """Return the gradient of one record, x (1, ...) and y (1,), by trainable tensor, flat."""
        loss = self._loss(self._model(torch.from_numpy(x)), torch.from_numpy(y)).sum()
        found = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        return [part.double().reshape(-1).numpy() for part in found]

    def tensor_norms(self, x: Inputs, y: Labels) -> Floats:
        """Return (n, tensors): the norm of each record's gradient of each tensor."""
        records = (self.gradient(x[[row]], y[[row]]) for row in range(len(y)))
        return np.array([[_norm(part) for part in parts] for parts in records])

    def unit_gradients(self, x: Inputs, y: Labels, owners: NDArray[np.intp]) -> Iterator[Floats]:
        """Yield the mean of each unit's gradients (d,), in the order of ``owners``' values."""
        for owner in np.unique(owners):
            rows = np.flatnonzero(owners == owner)
            total = sum(np.concatenate(self.gradient(x[[row]], y[[row]])) for row in rows)
            yield np.asarray(total) / len(rows)

    def clipped_sum(
        self, x: Inputs, y: Labels, owners: NDArray[np.intp], clip_norm: float
    ) -> Floats:
        """Return sum_u min(1, C / |g_u|) g_u (d,)."""
        total = np.zeros(sum(parameter.numel() for parameter in self._parameters))
        for gradient in self.unit_gradients(x, y, owners):
            total += gradient * min(1.0, clip_norm / max(_norm(gradient), 1e-300))
        return total

    def hardest(self, x: Inputs) -> Labels:
        """Return each input's least likely label: what presses hardest."""
        with torch.no_grad():
            return self._model(torch.from_numpy(x)).argmin(dim=1).numpy().astype(np.int64)


def without_dropout(model: nn.Module) -> nn.Module:
    """Switch a model's dropout off: its draw is no part of clipping, and no two are equal."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model


def find_canaries(
    oracle: Oracle,
    draw: Draw,
    rng: np.random.Generator,
    *,
    classes: int,
    unit: Unit = "record",
    tries: int = 96,
) -> Canaries:
    """Return the best of ``tries`` random inputs for each layer, and the one that spans all.

    A patient is a canary and an ordinary record together.
    """
    x = draw(rng, tries)
    y = rng.integers(0, classes, tries).astype(np.int64)
    hard = rng.random(tries) < _HARDEST
    y[hard] = oracle.hardest(x)[hard]
    tensors = oracle.tensor_norms(x, y)
    tensors[~np.isfinite(tensors).all(axis=1)] = 0.0  # (tries, tensors)
    layers = [np.linalg.norm(tensors[:, list(columns)], axis=1) for columns in oracle.layers]
    spanning = int((tensors / np.maximum(tensors.max(axis=0), 1e-300)).min(axis=1).argmax())
    chosen = [*(int(layer.argmax()) for layer in layers), spanning]
    count, others = len(chosen), [i for i in range(tries) if i not in chosen]
    company = count if unit == "patient" else 0
    rows = chosen + others[: company + _ORDINARY]
    owners = np.array([*range(count), *range(company), *range(count, count + _ORDINARY)])
    owners = owners[: len(rows)].astype(np.intp)
    return Canaries(
        x=x[rows],
        y=y[rows],
        owners=owners,
        count=count,
        norms=np.array([_norm(g) for g in oracle.unit_gradients(x[rows], y[rows], owners)]),
        smallest=float(tensors[spanning].min()),
    )


def insertion_findings(
    name: str, release: Release, oracle: Oracle, canaries: Canaries, *, clip_norm: float
) -> list[Finding]:
    """Return the findings at the plan's C and at one that every tensor of a canary exceeds."""
    small = 0.3 * max(canaries.smallest, 1e-3 * float(canaries.norms.max(initial=0.0)))
    found: list[Finding] = []
    for bound in (clip_norm, min(small, clip_norm / 2)):
        where = f"{name}, C = {bound:.3g}"
        if bound <= 0:
            found.append(unexercised(SENSITIVITY, where, "no canary has a gradient"))
            continue
        found += _sums(where, release, oracle, canaries, bound)
        found += _moves(where, release, canaries, bound)
    return found


def _sums(
    where: str, release: Release, oracle: Oracle, canaries: Canaries, bound: float
) -> list[Finding]:
    """The whole batch: its clipped sum is the oracle's, and the divisor is the plan's."""
    units = (canaries.x, canaries.y, canaries.owners)
    expected = oracle.clipped_sum(*units, bound)
    whole, released = release(*units, bound)
    error, divisor = _relative(whole, expected, bound), _relative(released, whole, bound)
    return [
        checked(AGREEMENT, where, f"relative error {error:.1e}", holds=error <= _AGREEMENT),
        checked(DIVISOR, where, f"relative error {divisor:.1e}", holds=divisor <= _DIVISOR),
    ]


def _moves(where: str, release: Release, canaries: Canaries, bound: float) -> list[Finding]:
    """Each canary beside the ordinary units: ||S(B) - S(B without u)|| <= C (1 + slack)."""
    x, y, owners = canaries.x, canaries.y, canaries.owners

    def total(chosen: NDArray[np.bool_], values: Inputs = x) -> Floats:
        return release(values[chosen], y[chosen], owners[chosen], bound)[0]

    ordinary = owners >= canaries.count
    rest = total(ordinary)
    moves = [_norm(total(ordinary | (owners == u)) - rest) for u in range(canaries.count)]
    broken = np.array(x)
    broken[owners == 0] = np.nan
    found = [
        _bounded(NONFINITE, where, [_norm(total(ordinary | (owners == 0), broken) - rest)], bound)
    ]
    above = int((canaries.norms[: canaries.count] > bound).sum())
    if above:
        text = f"{above} of {canaries.count} canaries above C"
        return [_bounded(SENSITIVITY, where, moves, bound, text), *found]
    why = "no canary's gradient exceeds this C, so clipping was not needed"
    return [unexercised(SENSITIVITY, where, why), *found]


def _bounded(
    test: str, where: str, moves: Sequence[float], bound: float, text: str = ""
) -> Finding:
    largest = float(np.max(moves)) / bound
    statistic = f"moves the sum by {largest:.6f} C" + (f", {text}" if text else "")
    return checked(test, where, statistic, holds=largest <= 1 + CLIP_SLACK)


def _layers(names: Sequence[str]) -> list[list[int]]:
    """Return the positions of each layer's tensors: those whose names share all but the last."""
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(name.rpartition(".")[0], []).append(position)
    return list(found.values())


def _relative(found: Floats, expected: Floats, bound: float) -> float:
    if found.shape != expected.shape:
        return np.inf
    return _norm(found - expected) / max(_norm(expected), bound)


def _norm(vector: Floats) -> float:
    return float(np.linalg.norm(vector))
