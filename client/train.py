"""The resident model of a site: private training steps from a base vector, and evaluation."""

from __future__ import annotations

import numpy as np
from torch import nn

from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..models.adapters import read_vector, select_trainable, write_vector
from ..models.evaluate import evaluate
from ..models.tasks import task
from ..privacy.clipping import OpacusClipper
from ..privacy.noise import NoiseSource
from ..privacy.step import private_gradient


class Trainer:
    """Owns the model; nothing else of a site touches torch."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        trainable = select_trainable(model, plan.model.trainable)
        self.layout = Layout.of({name: tuple(value.shape) for name, value in trainable.items()})
        self._model, self._names = model, self.layout.names
        self._task = task(plan.model.task)
        self._learning_rate = plan.rounds.local_learning_rate
        self._clipper = OpacusClipper(model, list(trainable.values()), self._task.loss)

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
    ) -> Vector:
        """Return the update (d,): where ``spec.steps`` private steps lead from ``base``, less it.

        Every step draws its own noise stream; nothing but this vector comes out.
        """
        self._model.train()
        moved = np.zeros(self.layout.size, dtype=np.float64)
        for step in range(spec.steps):
            write_vector(self._model, self._names, (base + moved).astype(np.float32))
            stream = noise.stream(site=site, round=round, step=step)
            gradient = private_gradient(spec, self._clipper, data.train_x, data.train_y, stream)
            moved -= self._learning_rate * gradient
        return moved.astype(np.float32)

    def load(self, vector: Vector) -> nn.Module:
        """Return the model with ``vector`` (d,) as its trainable part."""
        write_vector(self._model, self._names, vector)
        return self._model

    def evaluate(self, vector: Vector, data: SiteData) -> dict[str, float]:
        """Return the metrics of ``vector`` (d,) on the site's test part; empty without records."""
        if len(data.test_y) == 0:
            return {}
        return evaluate(self.load(vector), self._task, data.test_x, data.test_y)
