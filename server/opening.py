"""The open model as the coordinator needs it: layout, opened vector, and its mechanisms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..data.public import PublicSet
from ..models import registry
from ..models.adapters import read_vector, select_trainable, write_vector
from ..models.evaluate import evaluate
from ..models.tasks import task
from ..privacy.derive import mechanism, noise_multiplier


@dataclass(slots=True, kw_only=True)
class Opening:
    """The model with which a run opens; ``vector`` (d,) is its trainable part, untouched."""

    plan: Plan
    layout: Layout
    vector: Vector
    model: nn.Module

    def load(self, vector: Vector) -> nn.Module:
        """Return the model with ``vector`` (d,) as its trainable part."""
        write_vector(self.model, self.layout.names, vector)
        return self.model

    def measure(self, vector: Vector, test: PublicSet | None) -> dict[str, float]:
        """Return the metrics of ``vector`` (d,) on a labelled public set, none without one."""
        if test is None or test.y is None or len(test) == 0:
            return {}
        return evaluate(self.load(vector), task(self.plan.model.task), test.x, test.y)

    def measure_open_model(self, test: PublicSet | None) -> dict[str, float]:
        """Return the metrics of the model before any fine-tuning, none without a public set."""
        if test is None or test.y is None or len(test) == 0:
            return {}
        model = registry.open_model(self.plan.model)
        return evaluate(model, task(self.plan.model.task), test.x, test.y)


def opening(plan: Plan) -> Opening:
    """Return the plan's open model, pinned by digest, on one torch thread.

    One thread: sums over a batch then do not depend on the machine. Raises ``Refused`` or
    ``InvalidInput`` when this version does not hold that model.
    """
    torch.set_num_threads(1)
    model = registry.build(plan.model)
    trainable = select_trainable(model, plan.model.trainable)
    layout = Layout.of({name: tuple(value.shape) for name, value in trainable.items()})
    return Opening(plan=plan, layout=layout, vector=read_vector(model, layout.names), model=model)


def mechanisms(plan: Plan, layout: Layout) -> Mapping[str, MechanismSpec]:
    """Return each site's mechanism, as the site itself derives it from the plan."""
    sigma = noise_multiplier(plan)
    return {
        site.name: mechanism(plan, site, noise_multiplier=sigma, trainable_digest=layout.digest)
        for site in plan.sites
    }
