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
from ..models.adapters import read_vector, write_vector
from ..models.evaluate import evaluate
from ..models.fitted import build_for, layouts
from ..models.tasks import task
from ..privacy.derive import mechanism, noise_multiplier


@dataclass(slots=True, kw_only=True)
class Opening:
    """The model with which a run opens; ``vector`` (d + e,) is what of it travels, untouched.

    ``layout`` is that of the d coordinates that train, ``fitted`` that of the e constants that
    the sites fit together, ``whole`` that of both.
    """

    plan: Plan
    layout: Layout
    fitted: Layout
    whole: Layout
    vector: Vector
    model: nn.Module

    def load(self, vector: Vector) -> nn.Module:
        """Return the model with ``vector`` (d + e,) in it."""
        write_vector(self.model, self.whole.names, vector)
        return self.model

    def measure(self, vector: Vector, test: PublicSet | None) -> dict[str, float]:
        """Return the metrics of ``vector`` (d + e,) on a labelled public set, none without one."""
        if test is None or test.y is None or len(test) == 0:
            return {}
        return evaluate(self.load(vector), task(self.plan.model), test.x, test.y)

    def measure_open_model(self, test: PublicSet | None) -> dict[str, float]:
        """Return the metrics of the model before any fine-tuning, none without a public set."""
        if test is None or test.y is None or len(test) == 0:
            return {}
        model = registry.open_model(self.plan.model)
        if model is None:
            return {}  # its own head answers something else
        return evaluate(model, task(self.plan.model), test.x, test.y)


def opening(plan: Plan) -> Opening:
    """Return the plan's open model, pinned by digest, on one torch thread.

    One thread: sums over a batch then do not depend on the machine. Raises ``Refused`` or
    ``InvalidInput`` when this version does not hold that model.
    """
    torch.set_num_threads(1)
    model = build_for(plan)
    layout, fitted, whole = layouts(model, plan)
    return Opening(
        plan=plan,
        layout=layout,
        fitted=fitted,
        whole=whole,
        vector=read_vector(model, whole.names),
        model=model,
    )


def mechanisms(plan: Plan, layout: Layout) -> Mapping[str, MechanismSpec]:
    """Return each site's mechanism, as the site itself derives it from the plan."""
    sigma = noise_multiplier(plan)
    return {
        site.name: mechanism(plan, site, noise_multiplier=sigma, trainable_digest=layout.digest)
        for site in plan.sites
    }
