"""What all sites are asked once beside the rounds: common statistics before, calibration after.

The sites' answers and what follows from them are durable before anything is built on them, so
that a resumed run never asks again; one that was killed before asks again, and the sites repeat
the bytes that they have stored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.digest import sha256_hex
from ..core.errors import Interrupted, InvalidInput, Refused
from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec, spec_digest
from ..core.messages import (
    CALIBRATION,
    ONCE,
    STATISTICS,
    BadMessage,
    Decline,
    Sealed,
    Survey,
)
from ..core.plan import Plan
from ..models.fitted import KEPT, MEAN, OFFSET, SCALE, TEMPERATURE, with_values
from ..privacy.bounds import TAIL
from ..privacy.derive import calibration_mechanism, statistics_mechanism
from ..privacy.survey import StatisticsQuery, common, drifting
from .admission import Member
from .courier import Courier, digest_of_vector
from .post import Answer
from .rounds import Rules
from .task import Task

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
NAMES = {STATISTICS: "statistics", CALIBRATION: "calibration"}
"""Under which key the store remembers what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question to all sites: ``size`` sums each, under the mechanisms of the plan.

    ``payload`` is the model that it is about, ``base_sha256`` its digest; both may be of nothing.
    """

    question: int
    size: int
    specs: Mapping[str, MechanismSpec]
    base_sha256: str = sha256_hex(b"")
    payload: bytes = b""


@dataclass(slots=True)
class _Heard:
    answers: dict[str, Sealed] = field(default_factory=dict[str, Sealed])
    sums: dict[str, Floats] = field(default_factory=dict[str, Floats])
    refused: dict[str, str] = field(default_factory=dict[str, str])


def with_statistics(task: Task) -> Vector:
    """Return the model with which the rounds begin (d + e,), once statistics are durable."""
    found = task.store.recall(NAMES[STATISTICS])
    if found is None:
        return task.opened
    return set_values(task.layout, task.fitted, task.opened, found["values"])


class Surveyor:
    """Asks, admits, makes durable; ``meet`` looks who has come and who has gone."""

    def __init__(self, task: Task, courier: Courier, meet: Callable[[], object]) -> None:
        self._task, self._courier, self._meet = task, courier, meet

    @property
    def must_count(self) -> bool:
        """Return whether common statistics are wanted and not durable yet."""
        wanted = self._task.plan.statistics is not None
        return wanted and self._task.store.recall(NAMES[STATISTICS]) is None

    def statistics(self, heads: dict[str, str]) -> Vector:
        """Ask for common statistics; return the model (d + e,) with which the rounds begin.

        ``heads`` takes in where the sites say their ledgers stand. Raises ``Interrupted`` short
        of the plan's quorum and ``Refused`` when no site's answer is admitted.
        """
        asked = statistics_asked(self._task.plan)
        self._remember(asked, self._ask(asked, heads), fit_statistics)
        return with_statistics(self._task)

    def calibrated(self, vector: Vector, heads: dict[str, str]) -> Vector:
        """Return the released model (d + e,) with its threshold and temperature.

        Asks the sites unless their answers about this very model are durable. Raises as
        ``statistics``.
        """
        task = self._task
        if task.plan.calibration is None:
            return vector
        asked = calibration_asked(task.plan, vector)
        if task.store.recall(NAMES[CALIBRATION]) is None:
            self._remember(asked, self._ask(asked, heads), fit_calibration)
        found = task.store.recall(NAMES[CALIBRATION])
        if found["base_sha256"] != asked.base_sha256:
            raise InvalidInput(
                "this run was calibrated with another model than its last round gives",
                why="the folder was restored or damaged after it had ended",
                cure="restore the newest copy of the run's folder",
            )
        return set_values(task.layout, task.fitted, vector, found["values"])

    def _ask(self, asked: Asked, heads: dict[str, str]) -> _Heard:
        task, heard = self._task, _Heard()

        def hear(site: str, answer: Answer) -> None:
            code, survey, sums = admit(task.store.job, task.members[site], asked, site, answer)
            task.tell("answered", round=ONCE, site=site, code=code)
            if survey is None or not isinstance(answer, Sealed):
                logger.warning("%s: %s refused: %s", NAMES[asked.question], site, code)
                heard.refused[site] = code
                return
            heard.answers[site], heard.sums[site] = answer, sums
            heads[site] = survey.ledger_head

        self._courier.collect(
            question=asked.question,
            payload=asked.payload,
            digest=asked.base_sha256,
            sites=list(task.members),
            most=4 * asked.size,
            hear=hear,
            meet=self._meet,
        )
        _require_quorum(task, asked, heard)
        return heard

    def _remember(
        self,
        asked: Asked,
        heard: _Heard,
        fit: Callable[[Plan, Asked, Mapping[str, Floats]], dict[str, Any]],
    ) -> None:
        sums = {site: heard.sums[site] for site in self._task.members if site in heard.sums}
        self._task.store.remember(
            NAMES[asked.question],
            fit(self._task.plan, asked, sums)
            | {
                "base_sha256": asked.base_sha256,
                "refused": heard.refused,
                "answers": {site: _kept(heard.answers[site]) for site in sums},
            },
        )


def admit(
    job: str, member: Member, asked: Asked, site: str, answer: Answer
) -> tuple[str, Survey | None, Floats]:
    """Return ``ok`` and a site's sums, or the code under which its answer is refused.

    Checked in order: form, decline, byte length, signature, that it answers this question, and
    that its sums are finite and no larger than the site's public size and its noise allow.
    """
    nothing = np.zeros(0)
    if not isinstance(answer, Sealed):
        return getattr(answer, "code", "lost"), None, nothing
    spec = asked.specs[site]
    try:
        if not answer.payload:
            return Decline.open(answer, member.public_key).code, None, nothing
        if len(answer.payload) != 4 * asked.size:
            return "shape", None, nothing
        survey = Survey.open(answer, member.public_key)
    except BadMessage as error:
        return error.code, None, nothing
    given = (survey.job, survey.site, survey.attempt, survey.base_sha256, survey.spec)
    wanted = (job, site, asked.question, asked.base_sha256, spec_digest(spec))
    if given != wanted:
        return "round", None, nothing
    sums = np.frombuffer(answer.payload, dtype="<f4").astype(np.float64)
    if not np.isfinite(sums).all():
        return "nonfinite", None, nothing
    largest = member.public_records + spec.noise_std * math.sqrt(2 * TAIL)
    if np.abs(sums).max() > 1.001 * largest:
        return "norm", None, nothing
    return "ok", survey, sums


def statistics_asked(plan: Plan) -> Asked:
    """Return the question for common statistics: of no model."""
    specs = {site.name: statistics_mechanism(plan, site) for site in plan.sites}
    return Asked(
        question=STATISTICS,
        size=StatisticsQuery.of(plan).size,
        specs={name: spec for name, spec in specs.items() if spec is not None},
    )


def calibration_asked(plan: Plan, vector: Vector) -> Asked:
    """Return the question for scores by class: of the released model (d + e,)."""
    specs = {site.name: calibration_mechanism(plan, site) for site in plan.sites}
    bins = plan.calibration.bins if plan.calibration else 0
    return Asked(
        question=CALIBRATION,
        size=2 * bins,
        specs={name: spec for name, spec in specs.items() if spec is not None},
        base_sha256=digest_of_vector(vector),
        payload=vector.astype("<f4").tobytes(),
    )


def noise_of(asked: Asked, sites: Mapping[str, Floats]) -> float:
    """Return the standard deviation of one coordinate of the sum over these sites."""
    return math.sqrt(sum(asked.specs[site].noise_std ** 2 for site in sites))


def fit_statistics(plan: Plan, asked: Asked, sums: Mapping[str, Floats]) -> dict[str, Any]:
    """Return the constants of the first layer, by name, and which sites drift."""
    query = StatisticsQuery.of(plan)
    found = common(
        query,
        list(sums.values()),
        noise_std=noise_of(asked, sums),
        most=sum(plan.site(site).public_records for site in sums),
    )
    drift = [
        {"site": site, "feature": name}
        for site, own in sums.items()
        for name in drifting(query, own, found, noise_std=asked.specs[site].noise_std)
    ]
    least = plan.statistics.min_count if plan.statistics else 0.0
    values = {MEAN: found.mean, SCALE: found.scale, KEPT: found.kept(least)}
    return {"values": {name: value.tolist() for name, value in values.items()}, "drift": drift}


def fit_calibration(plan: Plan, asked: Asked, sums: Mapping[str, Floats]) -> dict[str, Any]:
    """Return the constants of the last layer, by name."""
    from ..models.calibration import fit_temperature, fit_threshold

    wanted, classes = plan.calibration, len(plan.model.classes)
    if wanted is None:
        return {"values": {}}
    counts, noise = np.sum(list(sums.values()), axis=0).reshape(2, -1), noise_of(asked, sums)
    offset = fit_threshold(counts, wanted.criterion, wanted.sensitivity, noise_std=noise)
    temperature = 1.0
    if wanted.temperature:
        temperature = fit_temperature(counts, classes=classes, offset=offset, noise_std=noise)
    offsets = [*([0.0] * (classes - 1)), offset + 0.0]  # no negative zero
    return {"values": {OFFSET: offsets, TEMPERATURE: [temperature]}}


def set_values(layout: Layout, fitted: Layout, vector: Vector, values: Mapping[str, Any]) -> Vector:
    """Return the model (d + e,) with these constants, by name, in its tail."""
    start, tail = np.split(vector, [layout.size])
    arrays = {name: np.array(value, dtype=np.float64) for name, value in values.items()}
    return np.concatenate([start, with_values(fitted, tail, arrays)])


def _require_quorum(task: Task, asked: Asked, heard: _Heard) -> None:
    plan = task.plan
    rules = Rules(
        roster=tuple(task.members),
        rounds=plan.rounds.count,
        quorum=plan.rounds.quorum,
        deadline_s=plan.rounds.deadline_s,
    )
    count, what = len(heard.sums) + len(heard.refused), NAMES[asked.question]
    if count < rules.answers_needed:
        silent = sorted(set(task.members) - set(heard.sums) - set(heard.refused))
        raise Interrupted(
            f"{what}: {count} of {rules.answers_needed} needed sites answered",
            why=f"silent until the deadline: {', '.join(silent)}",
            cure="--resume asks again; who has answered repeats the same bytes",
        )
    if not heard.sums:
        codes = ", ".join(f"{site}: {code}" for site, code in sorted(heard.refused.items()))
        raise Refused(
            f"{what}: no site's answer was admitted ({codes})",
            why="there is nothing to add up",
            cure="look at the reason codes; --resume goes on once the sites take part",
        )


def _kept(answer: Sealed) -> dict[str, str]:
    return {
        "header": answer.header.decode(),
        "signature": answer.signature.hex(),
        "payload": answer.payload.hex(),
    }
