"""Resolve a plan's names, calibrate its noise, and say what it will spend and send.

Reads no records and no weights; torch is imported by ``resolve`` alone, and only to count the
parameters of models that are not bundled. Work is counted, not timed: minutes depend on the
machine, so the only time given is the bound that the deadlines set. The accountant is imported
when it is needed: it takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.codec import codec
from ..core.errors import InvalidInput, InvalidPlan, Problem
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan, SiteRef
from ..core.plan_file import examine_plan
from ..core.plan_tables import in_file_order
from ..core.reading import apply_rules
from ..models import registry
from ..privacy.accountant import epsilon_of
from ..privacy.derive import mechanism, noise_multiplier, schedule
from .plan_names import RULES, require_built


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteForecast:
    """What one site does and spends: ``normaliser`` in records, ``weight`` as a share of 1."""

    name: str
    public_records: int
    sampling_rate: float
    normaliser: float
    weight: float
    noise_multiplier: float
    epsilon: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a plan will spend, send and compute.

    ``epsilon_by_round`` holds (round, epsilon spent by then) of the site that spends most; empty,
    and ``epsilon`` None, without privacy. ``bytes_up`` and ``bytes_down`` are payload bytes per
    site and round. ``noise_share`` is the expected L2 norm of the noise in one combined step, and
    ``noise_share_alone`` in one step of the smallest site, both as a share of the clip norm, which
    is the largest norm that the signal can have. ``record_passes`` counts the expected records in
    all batches of all sites; ``longest_minutes`` is the run in which every round closes at its
    deadline. ``cured`` says what is changed in the open model so that it can train record by
    record.
    """

    plan_sha256: str
    model: str
    trainable_parameters: int
    total_parameters: int
    cured: str
    sites: tuple[SiteForecast, ...]
    epsilon: float | None
    epsilon_by_round: tuple[tuple[int, float], ...]
    bytes_up: int
    bytes_down: int
    bytes_total: int
    noise_share: float
    noise_share_alone: float
    record_passes: float
    longest_minutes: float

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a careful reader would want to be told before the run."""
        return tuple(_notes(self))


def check(path: Path) -> Plan:
    """Return the plan of a file that this version can run.

    Raises ``MissingInput``; ``InvalidPlan`` with the problems of the file and of its names
    together; ``NotAvailable`` when the plan is right but names a plug-in that is not installed.
    """
    plan, problems = examine_plan(path)
    if problems := in_file_order(problems + apply_rules(RULES, plan)):
        raise InvalidPlan(str(path), problems)
    require_built(plan)
    try:
        _noise(plan)
    except InvalidPlan as error:
        raise InvalidPlan(str(path), error.problems) from None
    return plan


def resolve(plan: Plan) -> Forecast:
    """Return what a plan will spend and send; raises ``InvalidPlan`` or ``NotAvailable``.

    The sizes of a model that is not bundled are those of the net itself, built without its
    weights by torch and the package that it comes from.
    """
    if problems := apply_rules(RULES, plan):
        raise InvalidPlan("Plan(...)", problems)
    require_built(plan)
    size, total, cured = _sizes(plan)
    noise = _noise(plan)
    steps = [
        (mechanism(plan, site, noise_multiplier=noise, trainable_digest=""), site)
        for site in plan.sites
    ]
    spent = {site.name: _epsilon(plan, site, spec, plan.rounds.count) for spec, site in steps}
    worst = max(steps, key=lambda pair: spent[pair[1].name] or 0.0)
    up, down = (
        codec(plan.codec.name).size_bytes(size),
        codec("float32").size_bytes(size + _fitted(plan)),
    )
    weights = sum(site.fold_weight for site in plan.sites)
    return Forecast(
        plan_sha256=plan.digest,
        model=plan.model.name,
        trainable_parameters=size,
        total_parameters=total,
        cured=cured,
        sites=tuple(
            SiteForecast(
                name=site.name,
                public_records=site.public_records,
                sampling_rate=plan.privacy.sampling_rate,
                normaliser=spec.normaliser,
                weight=site.fold_weight / weights,
                noise_multiplier=spec.noise_multiplier,
                epsilon=spent[site.name],
            )
            for spec, site in steps
        ),
        epsilon=max((value for value in spent.values() if value is not None), default=None),
        epsilon_by_round=tuple(_by_round(plan, *worst)),
        bytes_up=up,
        bytes_down=down,
        bytes_total=(up + down) * len(plan.sites) * plan.rounds.count,
        noise_share=_noise_share(
            [(spec, site.fold_weight / weights) for spec, site in steps], size
        ),
        noise_share_alone=max(_noise_share([(spec, 1.0)], size) for spec, _ in steps),
        record_passes=sum(spec.normaliser * spec.steps for spec, _ in steps)
        * plan.rounds.count
        * (plan.training.augmentations if plan.training else 1),
        longest_minutes=plan.rounds.count * plan.rounds.deadline_s / 60,
    )


def _sizes(plan: Plan) -> tuple[int, int, str]:
    """Return (coordinates that train, all parameters, what is cured); raises ``InvalidPlan``."""
    try:
        if (known := registry.known_sizes(plan.model)) is not None:
            return (*known, "")
        found = registry.sizes(plan.model)
    except InvalidPlan:
        raise
    except InvalidInput as error:
        problem = Problem(
            where="[model]", what=error.source, why=f"{error.why}", cure=f"{error.cure}"
        )
        raise InvalidPlan("Plan(...)", error.problems or [problem]) from None
    return found.trainable, found.total, found.cured


def _fitted(plan: Plan) -> int:
    """Return how many constants that sites fit together travel with the model."""
    asked, model = plan.statistics, plan.model
    count = 0 if plan.calibration is None else 1 + len(model.classes)
    if asked is not None and asked.normalise:
        count += 2 * len(model.bounds)
    if asked is not None and asked.vocabulary:
        count += sum(map(len, model.categories.values()))
    return count


def _noise(plan: Plan) -> float:
    """Return the plan's noise multiplier; raises ``InvalidPlan`` when no noise is enough."""
    try:
        return noise_multiplier(plan)
    except InvalidInput as error:
        problem = Problem(
            where="[privacy] epsilon", what=error.source, why=f"{error.why}", cure=f"{error.cure}"
        )
        raise InvalidPlan("Plan(...)", [problem]) from None


def _epsilon(plan: Plan, site: SiteRef, spec: MechanismSpec, rounds: int) -> float | None:
    if not plan.privacy.enabled:
        return None
    return epsilon_of(schedule(plan, site, spec, rounds), spec.delta)


def _noise_share(mix: Iterable[tuple[MechanismSpec, float]], size: int) -> float:
    """Return sqrt(d) times the noise of a weighted mean, over the clip norm.

    One coordinate of a site's mean gradient has noise of standard deviation
    noise_multiplier * clip_norm / normaliser; independent noises add in squares.
    """
    variance = sum((w * spec.noise_multiplier / spec.normaliser) ** 2 for spec, w in mix)
    return math.sqrt(size * variance)


def _by_round(plan: Plan, spec: MechanismSpec, site: SiteRef) -> Iterator[tuple[int, float]]:
    """Yield the spend after the first round, each quarter and the last."""
    count = plan.rounds.count
    for rounds in sorted({1, *(max(1, count * quarter // 4) for quarter in range(1, 5))}):
        spent = _epsilon(plan, site, spec, rounds)
        if spent is not None:
            yield rounds, spent


def _notes(forecast: Forecast) -> Iterator[str]:
    if forecast.epsilon is None:
        yield "privacy is off: whoever sees an update may learn about single records"
    elif forecast.epsilon > 10:
        yield f"epsilon {forecast.epsilon:.1f} is weak: above 10 it promises little to one record"
    if forecast.noise_share > 1:
        yield (
            f"noise outweighs the signal {forecast.noise_share:.1f} to 1 in every step; train "
            "fewer parameters, sample more records, or add sites"
        )
    small = [site.name for site in forecast.sites if site.normaliser < 1]
    if small:
        yield f"less than one record per batch is expected at {', '.join(small)}"
