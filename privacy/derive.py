"""From a plan to the mechanism that a site will execute; coordinator and site derive it alike."""

from __future__ import annotations

import math

from ..core.digest import digest_of
from ..core.mechanism import MechanismSpec
from ..core.messages import CALIBRATION, EVALUATION, STATISTICS
from ..core.plan import Plan, SiteRef
from .accountant import calibrate
from .events import Spend, Step, Steps
from .survey import StatisticsQuery

EVALUATION_SHARE = 0.25
"""Share of a plan's epsilon that one private evaluation may cost alone.

Gaussian costs add in squares, so training's noise grows by a few per cent only.
"""

COUNTS = ("correct", "records")
"""What a private evaluation releases, noised: right answers and records of the test part."""


def noise_multiplier(plan: Plan) -> float:
    """Return the calibrated noise multiplier of every step, 0 when privacy is off.

    Calibrated on the whole plan: ``rounds.count * rounds.local_steps`` steps, and what a job may
    ask once beside them (``questions``), within epsilon.
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
        beside=_beside(plan),
    )


def evaluation_noise(plan: Plan) -> float:
    """Return the noise multiplier of the plan's one private evaluation."""
    return _noise_of(plan, EVALUATION_SHARE)


def evaluation_mechanism(plan: Plan, site: SiteRef) -> MechanismSpec | None:
    """Return the Gaussian mechanism of a site's noised counts; None where none is planned.

    Every unit of the test part contributes (its share of right answers, 1): an L2 norm of at
    most sqrt(2). No sampling, one step.
    """
    if not _evaluates(plan):
        return None
    content = digest_of("collegium/evaluation/1", {"counts": list(COUNTS)})
    return _once(plan, site, math.sqrt(2.0), evaluation_noise(plan), content)


def statistics_mechanism(plan: Plan, site: SiteRef) -> MechanismSpec | None:
    """Return the Gaussian mechanism of a site's sums before round 1; None where none is planned.

    Without privacy its noise multiplier is 0. Every unit contributes a row of
    ``StatisticsQuery``, whose L2 norm is bounded by the plan alone.
    """
    if plan.statistics is None:
        return None
    query, model = StatisticsQuery.of(plan), plan.model
    content = {
        "bounds": {name: list(pair) for name, pair in zip(query.names, query.bounds, strict=True)},
        "categories": {name: list(model.categories[name]) for name in query.categories},
        "missing": query.missing,
    }
    sigma = _noise_of(plan, plan.statistics.share) if plan.privacy.enabled else 0.0
    digest = digest_of("collegium/statistics/1", content)
    return _once(plan, site, query.sensitivity, sigma, digest)


def calibration_mechanism(plan: Plan, site: SiteRef) -> MechanismSpec | None:
    """Return the Gaussian mechanism of a site's scores by class and bin; None without them.

    Without privacy its noise multiplier is 0. Every unit contributes one to one cell (a patient
    the mean of its records' cells): an L2 norm of at most 1.
    """
    if plan.calibration is None:
        return None
    content = {"bins": plan.calibration.bins, "classes": list(plan.model.classes)}
    sigma = _noise_of(plan, plan.calibration.share) if plan.privacy.enabled else 0.0
    return _once(plan, site, 1.0, sigma, digest_of("collegium/calibration/1", content))


def questions(plan: Plan, site: SiteRef) -> dict[int, MechanismSpec]:
    """Return what a job may ask once beside the training, by question; only what is charged."""
    found = {
        STATISTICS: statistics_mechanism(plan, site),
        CALIBRATION: calibration_mechanism(plan, site),
        EVALUATION: evaluation_mechanism(plan, site),
    }
    return {
        question: spec
        for question, spec in found.items()
        if spec is not None and plan.privacy.enabled
    }


def schedule(plan: Plan, site: SiteRef, spec: MechanismSpec, rounds: int) -> Spend:
    """Return what a site will have spent after so many rounds.

    Common statistics come before the first, calibration and evaluation with the last.
    """
    spend = [(spec, rounds * spec.steps)]
    ended = rounds >= plan.rounds.count
    for question, mechanism in questions(plan, site).items():
        if ended or question == STATISTICS:
            spend.append((mechanism, mechanism.steps))
    return spend


def _beside(plan: Plan) -> Steps:
    """Return the steps beside the training; the same at every site."""
    asked = questions(plan, plan.sites[0]).values()
    return tuple((Step.of(mechanism), mechanism.steps) for mechanism in asked)


def _noise_of(plan: Plan, share: float) -> float:
    """Return the noise multiplier of one Gaussian step that costs that share of epsilon alone."""
    return calibrate(
        epsilon=share * plan.privacy.epsilon,
        delta=plan.privacy.delta,
        sampling_rate=1.0,
        steps=1,
        relation=plan.privacy.relation,
    )


def _once(
    plan: Plan, site: SiteRef, clip_norm: float, noise_multiplier: float, content: str
) -> MechanismSpec:
    """Return one step over every unit, without sampling; ``content`` names what is released."""
    privacy = plan.privacy
    return MechanismSpec(
        unit=privacy.unit,
        relation=privacy.relation,
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        sampler="poisson",
        sampling_rate=1.0,
        public_records=site.public_records,
        normaliser=1.0,
        steps=1,
        batch_cap=0,
        delta=float(privacy.delta),
        trainable_digest=content,
    )


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
