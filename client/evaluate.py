"""A site's private evaluation: noised counts of one model, charged before they are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ..core.errors import Refused
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.messages import EVALUATION, ONCE, Invitation, Report, Sealed
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..privacy.counts import noised_counts
from ..privacy.derive import evaluation_mechanism
from .survey import Once
from .train import Trainer, held_out_units


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateEvaluation:
    """Answers once per job; a repeated question gets the stored bytes."""

    once: Once
    spec: MechanismSpec
    data: SiteData
    trainer: Trainer

    @classmethod
    def of(cls, plan: Plan, once: Once, data: SiteData, trainer: Trainer) -> Self | None:
        """Return the plan's evaluation at this site, None where none is planned."""
        spec = evaluation_mechanism(plan, plan.site(once.site))
        return None if spec is None else cls(once=once, spec=spec, data=data, trainer=trainer)

    def report(self, asked: Invitation, vector: Vector) -> Sealed:
        """Return the signed noised counts of ``vector`` (d + e,) on the site's test part.

        Raises as ``Once.answer``, and ``Refused`` for a second attempt: the plan holds one.
        """
        if asked.attempt != EVALUATION:
            raise Refused("a second evaluation is not in the plan")
        return self.once.answer(asked, lambda: self._answer(asked, vector))

    def _answer(self, asked: Invitation, vector: Vector) -> Sealed:
        right = self.trainer.right_answers(vector, self.data)
        site, noise = self.once.site, self.once.noise
        stream = noise.stream(site=site, round=ONCE, attempt=asked.attempt, step=0)
        counts = noised_counts(self.spec, right, held_out_units(self.spec, self.data), stream)
        return Report(
            job=asked.job, site=site, model_sha256=asked.base_sha256, metrics=counts
        ).seal(self.once.key)
