"""From a plan to the mechanism that a site will execute; coordinator and site derive it alike."""

from __future__ import annotations

import math

from ..core.digest import digest_of
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan, SiteRef
from .accountant import calibrate
from .events import Spend, Step

EVALUATION_SHARE = 0.25
"""Share of a plan's epsilon that one private evaluation may cost alone.

Gaussian costs add in squares, so training's noise grows by a few per cent only.
"""

COUNTS = ("correct", "records")
"""What a private evaluation releases, noised: right answers and records of the test part."""


def noise_multiplier(plan: Plan) -> float:
    """Return the calibrated noise multiplier of every step, 0 when privacy is off.

    Calibrated on the whole plan: ``rounds.count * rounds.local_steps`` steps, and the private
    evaluation where there is one, within epsilon.
    """
    privacy = plan.privacy
    if not privacy.enabled:
        return 0.0
    return calibrate(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=privacy.sampling_rate,
        steps=plan.rounds.count * plan.rounds.local_steps,
        relation=privacy.relation,
        batch_cap=privacy.batch_cap,
        public_records=max(site.public_records for site in plan.sites),
        beside=((Step(evaluation_noise(plan), 1.0), 1),) if _evaluates(plan) else (),
    )


def evaluation_noise(plan: Plan) -> float:
    """Return the noise multiplier of the plan's one private evaluation."""
    return calibrate(
        epsilon=EVALUATION_SHARE * plan.privacy.epsilon,
        delta=plan.privacy.delta,
        sampling_rate=1.0,
        steps=1,
        relation=plan.privacy.relation,
    )


def evaluation_mechanism(plan: Plan, site: SiteRef) -> MechanismSpec | None:
    """Return the Gaussian mechanism of a site's noised counts; None where none is planned.

    Every unit of the test part contributes (its share of right answers, 1): an L2 norm of at
    most sqrt(2). No sampling, one step.
    """
    if not _evaluates(plan):
        return None
    privacy = plan.privacy
    return MechanismSpec(
        unit=privacy.unit,
        relation=privacy.relation,
        clip_norm=math.sqrt(2.0),
        noise_multiplier=evaluation_noise(plan),
        sampler="poisson",
        sampling_rate=1.0,
        public_records=site.public_records,
        normaliser=1.0,
        steps=1,
        batch_cap=0,
        delta=float(privacy.delta),
        trainable_digest=digest_of("collegium/evaluation/1", {"counts": list(COUNTS)}),
    )


def schedule(plan: Plan, site: SiteRef, spec: MechanismSpec, rounds: int) -> Spend:
    """Return what a site will have spent after so many rounds, the evaluation with the last."""
    spend = [(spec, rounds * spec.steps)]
    evaluation = evaluation_mechanism(plan, site)
    if evaluation is not None and rounds >= plan.rounds.count:
        spend.append((evaluation, 1))
    return spend


def _evaluates(plan: Plan) -> bool:
    return plan.privacy.enabled and plan.evaluation.origin == "private"


def mechanism(
    plan: Plan, site: SiteRef, *, noise_multiplier: float, trainable_digest: str
) -> MechanismSpec:
    """Return the site's mechanism for one round; every number is a constant of the plan."""
    privacy = plan.privacy
    return MechanismSpec(
        unit=privacy.unit,
        relation=privacy.relation,
        clip_norm=float(privacy.clip_norm),
        noise_multiplier=float(noise_multiplier),
        sampler="truncated-poisson" if privacy.batch_cap else "poisson",
        sampling_rate=float(privacy.sampling_rate),
        public_records=site.public_records,
        normaliser=float(privacy.sampling_rate * site.public_records),
        steps=plan.rounds.local_steps,
        batch_cap=privacy.batch_cap,
        delta=float(privacy.delta),
        trainable_digest=trainable_digest,
    )
