"""What a job may ask a site once: charged on disk, computed, stored, and only ever repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.errors import CollegiumError
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec, spec_digest
from ..core.messages import (
    CALIBRATION,
    EVALUATION,
    ONCE,
    STATISTICS,
    BadMessage,
    Invitation,
    Report,
    Sealed,
    Survey,
)
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..models.calibration import score_histogram
from ..models.evaluate import logits
from ..privacy.derive import calibration_mechanism, statistics_mechanism
from ..privacy.events import Spend
from ..privacy.ledger import Ledger
from ..privacy.noise import Floats, NoiseSource
from ..privacy.survey import StatisticsQuery, noised, shares_of
from .gate import same_base
from .halt import OtherBase
from .spool import Spool, digest_of
from .train import Trainer, units_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """Answers each question of a job once; a repeated one gets the stored bytes.

    ``plan`` is the signed plan's digest, ``specs`` what each question is charged as; without
    ``private`` nothing is charged.
    """

    site: str
    plan: str
    key: Ed25519PrivateKey
    ledger: Ledger
    spool: Spool
    noise: NoiseSource
    specs: Mapping[int, MechanismSpec]
    private: bool

    def planned(self, job: str) -> Spend:
        """Return what a job still holds beside its rounds: training must leave it affordable."""
        spent = {spec for spec, _ in self.ledger.spend(job=job)}
        return [(spec, spec.steps) for spec in self.specs.values() if spec not in spent]

    def answer(self, asked: Invitation, make: Callable[[], Sealed]) -> Sealed:
        """Return the stored reply, or what ``make`` computes once the charge is on disk.

        Raises ``OverBudget``, ``OtherBase`` for another model under the first charge, and
        ``CollegiumError`` when bytes that may have left are gone.
        """
        job, question = asked.job, asked.attempt
        reply = self._stored(asked)
        if reply is None:
            if self.private:
                spec = self.specs[question]
                self.ledger.reserve(
                    job=job,
                    round=ONCE,
                    attempt=question,
                    base_sha256=asked.base_sha256,
                    spec=spec,
                    plan=self.plan,
                    rng=self.noise.name,
                    planned=[row for row in self.planned(job) if row[0] != spec],
                )
            reply = make()
            self.spool.put(job, ONCE, question, reply)
        if self.private:
            sent = digest_of(reply)
            self.ledger.commit(job=job, round=ONCE, attempt=question, update_sha256=sent)
        return reply

    def _stored(self, asked: Invitation) -> Sealed | None:
        reply = self.spool.get(asked.job, ONCE, asked.attempt)
        sent = self.ledger.committed(job=asked.job, round=ONCE, attempt=asked.attempt)
        if sent not in (None, digest_of(reply) if reply else ""):
            raise CollegiumError("this question was answered with bytes that are not here any more")
        if not same_base(self.ledger, asked):  # a charge without its reply is of one model, too
            raise OtherBase
        if reply is not None and self._base_of(reply, asked.attempt) != asked.base_sha256:
            raise OtherBase
        return reply

    def _base_of(self, reply: Sealed, question: int) -> str:
        public = self.key.public_key()
        if question == EVALUATION:
            return Report.open(reply, public).model_sha256
        return Survey.open(reply, public).base_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveys:
    """Common statistics before the rounds and scores by class after them, as the plan asks."""

    once: Once
    plan: Plan
    specs: Mapping[int, MechanismSpec]
    data: SiteData
    trainer: Trainer

    @classmethod
    def of(cls, plan: Plan, once: Once, data: SiteData, trainer: Trainer) -> Surveys:
        """Return what this plan asks of this site; no question at all without its tables."""
        specs = survey_mechanisms(plan, once.site)
        return cls(once=once, plan=plan, specs=specs, data=data, trainer=trainer)

    def is_asked(self, asked: Invitation) -> bool:
        """Return whether this is a survey of the plan, False for any other evaluation.

        Raises ``BadMessage`` for a question beside the rounds that the plan does not hold.
        """
        if asked.round != ONCE or asked.attempt == EVALUATION:
            return False
        if asked.attempt not in self.specs:
            raise BadMessage("round")
        return True

    def is_of_a_model(self, asked: Invitation) -> bool:
        """Return whether the question is about a model, which comes with it."""
        return asked.attempt != STATISTICS

    def answer(self, asked: Invitation, vector: Vector) -> Sealed:
        """Return the signed noised sums; ``vector`` (d + e,) is the model that is asked about.

        Raises as ``Once.answer``.
        """
        spec = self.specs[asked.attempt]

        def make() -> Sealed:
            sums = exact_sums(
                self.plan, asked.attempt, spec, self.data, trainer=self.trainer, vector=vector
            )
            stream = self.once.noise.stream(
                site=self.once.site, round=ONCE, attempt=asked.attempt, step=0
            )
            payload = noised(spec, sums, stream).astype("<f4").tobytes()
            return Survey(
                job=asked.job,
                site=self.once.site,
                attempt=asked.attempt,
                base_sha256=asked.base_sha256,
                spec=spec_digest(spec),
                ledger_head=self.once.ledger.head,
            ).seal(self.once.key, payload)

        return self.once.answer(asked, make)


def survey_mechanisms(plan: Plan, site: str) -> dict[int, MechanismSpec]:
    """Return what a site executes for each survey of the plan; noise 0 without privacy."""
    ref = plan.site(site)
    found = {
        STATISTICS: statistics_mechanism(plan, ref),
        CALIBRATION: calibration_mechanism(plan, ref),
    }
    return {question: spec for question, spec in found.items() if spec is not None}


def exact_sums(
    plan: Plan,
    question: int,
    spec: MechanismSpec,
    data: SiteData,
    *,
    trainer: Trainer,
    vector: Vector,
) -> Floats:
    """Return what is added up at a site, float64; it never leaves without the plan's noise.

    Common statistics are over the training records; ``vector`` (d + e,) is the model whose scores
    are counted, by class and bin, over the records held out for calibration or else the training
    ones. A score that is no number counts as 0.
    """
    if question == STATISTICS:
        return StatisticsQuery.of(plan).sums(data.train_x, units_of(spec, data))
    if data.calibration_x is not None and data.calibration_y is not None:
        data = replace(
            data,
            train_x=data.calibration_x,
            train_y=data.calibration_y,
            train_units=data.calibration_units,
        )
    rows, shares = shares_of(units_of(spec, data))
    scores = logits(trainer.load(vector), data.train_x)[rows]
    bins = plan.calibration.bins if plan.calibration else 0
    return score_histogram(scores, data.train_y[rows], bins, weights=shares).ravel()
