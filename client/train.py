"""The resident model of a site: private training steps from a base vector, and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..core.errors import InvalidInput
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..core.plan_training import Training
from ..data.site_data import Records, SiteData
from ..models.adapters import read_vector, write_vector
from ..models.evaluate import finite_outputs, logits
from ..models.fitted import attach, layouts
from ..models.preprocess import TablePreprocess
from ..models.resident import Features, Resident, is_resident
from ..models.tasks import task
from ..privacy.augment import Augment
from ..privacy.clipping import CHUNK
from ..privacy.device_noise import draws_on_device
from ..privacy.noise import NoiseSource
from ..privacy.step import PartObserver, StepObserver, private_gradient
from ..privacy.units import Units
from .compiled import compile_frozen
from .phases import Phases


class Trainer:
    """Owns the model; nothing else of a site touches torch."""

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        *,
        device: str = "cpu",
        precision: str = "float32",
        micro_batch: int = 0,
        compile: bool = False,
        features: Features | None = None,
    ) -> None:
        """``precision``, ``micro_batch`` and ``compile`` are those of [hardware].

        ``features`` holds what other trainers of the same open model have made of their records.

        Raises ``InvalidInput`` for a model that cannot train so.
        """
        self._device = torch.device(device)
        attach(model, plan).to(self._device)
        self.layout, self.fitted, self.whole = layouts(model, plan)
        trainable = {name: model.get_parameter(name) for name in self.layout.names}
        self._model, self._names = model, self.layout.names
        self._task = task(plan.model)
        self._learning_rate = plan.rounds.local_learning_rate
        training, self._micro_batch = plan.training or Training(), micro_batch
        self._augment = augment_of(plan)
        kept = self._augment is None and is_resident(model, plan.model.trainable)
        self._resident = Resident(model, features) if kept else None
        self._phases = Phases(
            model if self._resident is None else self._resident.alone,
            trainable,
            self._task.loss,
            warm_rounds=training.warm_head,
            chunk=micro_batch or CHUNK,
            autocast=torch.bfloat16 if precision == "bf16" else None,
        )
        if compile:
            compile_frozen(model)

    @property
    def device(self) -> str:
        """Return the device that trains, as torch names it."""
        return str(self._device)

    @property
    def device_noise(self) -> bool:
        """Return whether the noise of so large a vector is drawn by the device's generator."""
        return draws_on_device(self.layout.size, self._device)

    @property
    def answers_fast(self) -> bool:
        """Return whether many records are answered in little time: a table's, or kept features."""
        table = isinstance(getattr(self._model, "preprocess", None), TablePreprocess)
        return table or self._resident is not None

    @property
    def open_vector(self) -> Vector:
        """Return what the model holds now: what trains, and the fitted constants (d + e,)."""
        return read_vector(self._model, self.whole.names)

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
        sees each step, inside the site; ``before_step`` may raise to end the training. In a
        round of ``warm_head`` the update is 0 outside the head, and a ``PartObserver`` is told.
        """
        self._model.train()
        units, phase = units_of(spec, data), self._phases.of(round)
        if phase.live is not None and isinstance(observer, PartObserver):
            observer.restrict(phase.live)
        moves = slice(None) if phase.live is None else phase.live
        start, constants = np.split(base, [self.layout.size])
        write_vector(self._model, self.fitted.names, constants)
        moved = np.zeros(self.layout.size, dtype=np.float64)
        x = data.train_x if self._resident is None else self._resident.features(data.train_x)
        for step in range(spec.steps):
            if before_step is not None:
                before_step()
            write_vector(self._model, self._names, (start + moved).astype(np.float32))
            stream = noise.stream(site=site, round=round, attempt=attempt, step=step)
            with phase.alone():
                gradient = private_gradient(
                    spec,
                    phase.clipper,
                    x,
                    data.train_y,
                    stream,
                    units=units,
                    step=step,
                    observer=observer,
                    device=self._device,
                    augment=self._augment,
                    micro_batch=self._micro_batch,
                )
            moved[moves] -= self._learning_rate * gradient
        return moved.astype(np.float32)

    def outputs(self, vector: Vector, x: Records) -> NDArray[Any]:
        """Return what ``vector`` (d + e,) answers to (n, ...) raw values: (n, outputs, ...)."""
        model = self.load(vector)
        if self._resident is None:
            return logits(model, x, keep=self._task.compact)
        return logits(self._resident.alone, self._resident.features(x), keep=self._task.compact)

    def load(self, vector: Vector) -> nn.Module:
        """Return the model with ``vector`` (d + e,): what trains, and the fitted constants."""
        write_vector(self._model, self.whole.names, vector)
        return self._model

    def right_answers(self, vector: Vector, data: SiteData) -> NDArray[np.bool_]:
        """Return which records (m,) of the site's test part the model answers rightly.

        Raises ``InvalidInput`` for a task whose answers are not right or wrong.
        """
        if len(data.test_y) == 0:
            return np.zeros(0, dtype=np.bool_)
        if self._task.right is None:
            raise InvalidInput(
                f"the answers of the task {self._task.name} are not right or wrong",
                why="a private evaluation counts right answers",
                cure='write [evaluation] origin = "public" where the test parts may be public',
            )
        outputs = finite_outputs(self.outputs(vector, data.test_x))
        return self._task.right(outputs, data.test_y)

    def evaluate(self, vector: Vector, data: SiteData) -> dict[str, float]:
        """Return the metrics of ``vector`` (d,) on the site's test part; empty without records."""
        if len(data.test_y) == 0:
            return {}
        return self._task.metrics(finite_outputs(self.outputs(vector, data.test_x)), data.test_y)


def augment_of(plan: Plan) -> Augment | None:
    """Return how the plan varies its images; raises ``InvalidInput`` where records are none."""
    training, model = plan.training or Training(), plan.model
    if training.augment == "none":
        return None
    if model.bounds or model.categories or "tokens" in model.options:
        raise InvalidInput(
            f"the plan varies images, and the records of {model.name} are none",
            why="[training] augment shifts and mirrors images",
            cure='write augment = "none"',
        )
    return Augment(kind=training.augment, copies=training.augmentations)


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
