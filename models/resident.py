"""Features of a frozen trunk, computed once: a head then trains without running the trunk again."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .evaluate import logits
from .preprocess import TablePreprocess


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


class Resident:
    """The features of each array of records, as long as that array lives here.

    ``x`` goes through the trunk in the order in which it lies, in parts whose size depends on the
    model alone, so the same records have the same features wherever they are trained on.
    Memory: (n, features) float32 beside the records; nothing of it ever leaves the site.
    """

    def __init__(self, model: nn.Module) -> None:
        """``model`` has ``features``, ``head`` and ``output``, and only its head trains."""
        self._trunk = _Trunk(model)
        self.alone = HeadAlone(model)
        self._known: dict[int, tuple[NDArray[Any], NDArray[np.float32]]] = {}

    def features(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, features) of (n, ...) raw values, computed when they are first asked for."""
        found = self._known.get(id(x))
        if found is None or found[0] is not x:
            made = logits(self._trunk, x)
            found = self._known[id(x)] = (x, np.ascontiguousarray(made, dtype=np.float32))
        return found[1]


def is_resident(model: nn.Module, trainable: str) -> bool:
    """Return whether features may be kept: the trunk is frozen, and nothing in it is fitted.

    A table's first layer is fitted by the plan's common statistics, and costs nothing to run.
    """
    parts = all(hasattr(model, name) for name in ("features", "head", "output", "preprocess"))
    dense = parts and isinstance(model.head, nn.Linear)  # it reads one vector per record
    return trainable == "head" and dense and not isinstance(model.preprocess, TablePreprocess)
