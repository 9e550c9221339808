"""The resident model of a site: private training steps from a base vector, and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..core.errors import InvalidInput
from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..models.adapters import read_vector, select_trainable, write_vector
from ..models.evaluate import evaluate, logits
from ..models.tasks import task
from ..privacy.clipping import make_clipper
from ..privacy.device_noise import draws_on_device
from ..privacy.noise import NoiseSource
from ..privacy.step import StepObserver, private_gradient
from ..privacy.units import Units


class Trainer:
    """Owns the model; nothing else of a site touches torch."""

    def __init__(self, model: nn.Module, plan: Plan, *, device: str = "cpu") -> None:
        self._device = torch.device(device)
        model.to(self._device)
        trainable = select_trainable(model, plan.model.trainable)
        self.layout = Layout.of({name: tuple(value.shape) for name, value in trainable.items()})
        self._model, self._names = model, self.layout.names
        self._task = task(plan.model.task)
        self._learning_rate = plan.rounds.local_learning_rate
        self._clipper = make_clipper(model, list(trainable.values()), self._task.loss)

    @property
    def device(self) -> str:
        """Return the device that trains, as torch names it."""
        return str(self._device)

    @property
    def device_noise(self) -> bool:
        """Return whether the noise of so large a vector is drawn by the device's generator."""
        return draws_on_device(self.layout.size, self._device)

    @property
    def open_vector(self) -> Vector:
        """Return the trainable vector (d,) that the model holds now."""
        return read_vector(self._model, self._names)

    def train(
        self,
        base: Vector,
        data: SiteData,
        spec: MechanismSpec,
        noise: NoiseSource,
        *,
        site: str,
        round: int,
        attempt: int = 1,
        observer: StepObserver | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> Vector:
        """Return the update (d,): where ``spec.steps`` private steps lead from ``base``, less it.

        Every step draws its own noise stream; nothing but this vector comes out. ``observer``
        sees each step, inside the site; ``before_step`` may raise to end the training.
        """
        self._model.train()
        units = units_of(spec, data)
        moved = np.zeros(self.layout.size, dtype=np.float64)
        for step in range(spec.steps):
            if before_step is not None:
                before_step()
            write_vector(self._model, self._names, (base + moved).astype(np.float32))
            stream = noise.stream(site=site, round=round, attempt=attempt, step=step)
            gradient = private_gradient(
                spec,
                self._clipper,
                data.train_x,
                data.train_y,
                stream,
                units=units,
                step=step,
                observer=observer,
                device=self._device,
            )
            moved -= self._learning_rate * gradient
        return moved.astype(np.float32)

    def load(self, vector: Vector) -> nn.Module:
        """Return the model with ``vector`` (d,) as its trainable part."""
        write_vector(self._model, self._names, vector)
        return self._model

    def right_answers(self, vector: Vector, data: SiteData) -> NDArray[np.bool_]:
        """Return which records (m,) of the site's test part the model answers rightly."""
        if len(data.test_y) == 0:
            return np.zeros(0, dtype=np.bool_)
        return logits(self.load(vector), data.test_x).argmax(axis=1) == data.test_y

    def evaluate(self, vector: Vector, data: SiteData) -> dict[str, float]:
        """Return the metrics of ``vector`` (d,) on the site's test part; empty without records."""
        if len(data.test_y) == 0:
            return {}
        return evaluate(self.load(vector), self._task, data.test_x, data.test_y)


def held_out_units(spec: MechanismSpec, data: SiteData) -> Units:
    """Return the units of the test part, as ``units_of`` for the training part."""
    return _units(spec, data.test_units, len(data.test_y))


def units_of(spec: MechanismSpec, data: SiteData) -> Units:
    """Return which training records are sampled and clipped together under this mechanism.

    Raises ``InvalidInput`` when patients are protected and the records name none.
    """
    return _units(spec, data.train_units, len(data.train_y))


def _units(spec: MechanismSpec, owners: NDArray[Any] | None, count: int) -> Units:
    if spec.unit == "record":
        return Units.singles(count)
    if owners is None:
        raise InvalidInput(
            "the plan protects patients, but these records name none",
            why="all records of one patient must be sampled and clipped together",
            cure="name the patient column in [data] unit, or pass train_units",
        )
    return Units.of(owners)
