"""The teacher's side of a distillation: its answers, asked once for records that do not vary."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .hints import with_features


class Teacher:
    """Answers, and with ``hint`` features, of a model that is never changed, in parts.

    ``records`` is how many there are to draw from, ``at_once`` how many fit into memory. Where
    records stay ``as_they_are`` each one's answer is kept, and the model asked for new ones only.
    """

    def __init__(
        self, model: nn.Module, *, records: int, at_once: int, hint: bool, as_they_are: bool
    ) -> None:
        self._model, self._at_once, self._hint = model.eval(), at_once, hint
        self._as_they_are, self._asked = as_they_are, torch.zeros(records, dtype=torch.bool)
        self._kept: tuple[Tensor, ...] = ()

    def answer(self, batch: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        """Return logits (batch, classes), then features (batch, width) where there is a hint.

        ``places`` (batch,) says which records of the transfer set these are.
        """
        if not self._as_they_are:
            return self._ask(batch)
        places_once, first = np.unique(places.numpy(), return_index=True)
        new = ~self._asked[places_once].numpy()
        if new.any():
            self._keep(self._ask(batch[first[new]]), torch.from_numpy(places_once[new]))
        return tuple(kept[places] for kept in self._kept)

    def _keep(self, found: tuple[Tensor, ...], places: Tensor) -> None:
        if not self._kept:
            records = len(self._asked)
            self._kept = tuple(torch.zeros(records, each.shape[1]) for each in found)
        for kept, each in zip(self._kept, found, strict=True):
            kept[places] = each
        self._asked[places] = True

    def _ask(self, batch: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            parts = batch.split(self._at_once)
            if not self._hint:
                return (torch.cat([self._model(part) for part in parts]),)
            both = [with_features(self._model, part) for part in parts]
        return torch.cat([each for each, _ in both]), torch.cat([each for _, each in both])
