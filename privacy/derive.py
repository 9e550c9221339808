"""From a plan to the mechanism that a site will execute; coordinator and site derive it alike."""

from __future__ import annotations

from ..core.errors import NotBuiltYet
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan, SiteRef
from .accountant import calibrate


def noise_multiplier(plan: Plan) -> float:
    """Return the calibrated noise multiplier of every step, 0 when privacy is off.

    Calibrated on the whole plan: ``rounds.count * rounds.local_steps`` steps within epsilon.
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
    )


def mechanism(
    plan: Plan, site: SiteRef, *, noise_multiplier: float, trainable_digest: str
) -> MechanismSpec:
    """Return the site's mechanism for one round; every number is a constant of the plan."""
    privacy = plan.privacy
    if privacy.unit != "record":
        raise NotBuiltYet(
            f"privacy unit '{privacy.unit}' is not built yet",
            why="sampling and clipping by patient come with the privacy core",
            cure="set [privacy] unit = 'record'",
        )
    if privacy.batch_cap:
        raise NotBuiltYet(
            "truncated Poisson sampling (batch_cap > 0) is not built yet",
            why="its sampler and accounting come with the privacy core",
            cure="set [privacy] batch_cap = 0",
        )
    return MechanismSpec(
        unit=privacy.unit,
        relation=privacy.relation,
        clip_norm=float(privacy.clip_norm),
        noise_multiplier=float(noise_multiplier),
        sampler="poisson",
        sampling_rate=float(privacy.sampling_rate),
        public_records=site.public_records,
        normaliser=float(privacy.sampling_rate * site.public_records),
        steps=plan.rounds.local_steps,
        batch_cap=privacy.batch_cap,
        delta=float(privacy.delta),
        trainable_digest=trainable_digest,
    )
