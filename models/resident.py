"""Features of a frozen trunk, computed once: a head then trains without running the trunk again."""

from __future__ import annotations

import math
import tempfile
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .evaluate import logits
from .preprocess import TablePreprocess

PART = 8192  # records whose features are in memory at once
SPILL_BYTES = 512 << 20
KEPT = 64  # arrays of records whose features are kept, the ones asked for last


class HeadAlone(nn.Module):
    """What follows the trunk: features to outputs, with the very parameters of the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.head = cast("nn.Module", model.head)
        self.output = cast("nn.Module", model.output)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, features) to (batch, outputs)."""
        return self.output(self.head(x))


class _Trunk(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.features(x)  # pyright: ignore[reportCallIssue]


class Features:
    """What one trunk made of the arrays of records that were asked for last; models may share it.

    Several models in one process that start from one open model, as in a simulation, have the
    same trunk. Memory: (n, features) float32 beside each of at most ``kept`` arrays of records,
    which are kept, too: while an array is here, no other can have its id.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._known: dict[int, tuple[NDArray[Any], NDArray[np.float32]]] = {}
        self._locks: dict[int, Lock] = {}
        self._lock = Lock()

    def of(self, x: NDArray[Any], trunk: nn.Module) -> NDArray[np.float32]:
        """Return (n, features) of (n, ...) raw values, computed when they are first asked for."""
        with self._lock:
            mine = self._locks.setdefault(id(x), Lock())
        with mine:  # who asks for the same records meanwhile waits, and does not compute them too
            with self._lock:
                found = self._known.get(id(x))
            if found is None or found[0] is not x:
                found = (x, _through(trunk, x))
            with self._lock:
                self._keep(found)
            return found[1]

    def _keep(self, found: tuple[NDArray[Any], NDArray[np.float32]]) -> None:
        """Put an array at the end, the newest, and forget the oldest beyond ``kept``."""
        self._known.pop(id(found[0]), None)
        self._known[id(found[0])] = found
        for old in list(self._known)[: -self._kept]:
            del self._known[old]
            self._locks.pop(old, None)


def _through(trunk: nn.Module, x: NDArray[Any]) -> NDArray[np.float32]:
    """Return the features of all records, in parts; many of them lie in a nameless file."""
    made = np.zeros((0, 0), dtype=np.float32)
    for start in range(0, max(len(x), 1), PART):
        part = logits(trunk, x[start : start + PART]).astype(np.float32, copy=False)
        if start == 0:
            made = _room((len(x), *part.shape[1:]))
        made[start : start + len(part)] = part
    return made


def _room(shape: tuple[int, ...]) -> NDArray[np.float32]:
    if math.prod(shape) * 4 <= SPILL_BYTES:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as stream:  # it has no name, and goes when the array goes
        return np.memmap(stream, dtype=np.float32, mode="w+", shape=shape)


class Resident:
    """A model whose head trains on features that its trunk has made once.

    Records go through the trunk in the order in which they lie, in parts whose size depends on
    the model alone, so the same records have the same features wherever they are trained on.
    Nothing of them ever leaves the site.
    """

    def __init__(self, model: nn.Module, features: Features | None = None) -> None:
        """``model`` has ``features``, ``head`` and ``output``, and only its head trains."""
        self._trunk, self._features = _Trunk(model), features or Features()
        self.alone = HeadAlone(model)

    def features(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, features) of (n, ...) raw values."""
        return self._features.of(x, self._trunk)


def is_resident(model: nn.Module, trainable: str) -> bool:
    """Return whether features may be kept: the trunk is frozen, and nothing in it is fitted.

    A table's first layer is fitted by the plan's common statistics, and a trunk without weights
    costs nothing to run.
    """
    parts = all(hasattr(model, name) for name in ("features", "head", "output", "preprocess"))
    if trainable != "head" or not parts or isinstance(model.preprocess, TablePreprocess):
        return False
    if not isinstance(model.head, nn.Linear):  # it reads one vector per record
        return False
    return len(list(model.parameters())) > len(list(model.head.parameters()))
