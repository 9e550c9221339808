"""A site's private evaluation: noised counts of one model, charged before they are computed."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.errors import CollegiumError, Refused
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.messages import Invitation, Report, Sealed
from ..data.site_data import SiteData
from ..privacy.counts import noised_counts
from ..privacy.events import Spend
from ..privacy.ledger import Ledger
from ..privacy.noise import NoiseSource
from .policy import EVALUATION
from .spool import Spool, digest_of
from .train import Trainer, held_out_units


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateEvaluation:
    """Answers once per job; a repeated question gets the stored bytes."""

    site: str
    plan: str
    key: Ed25519PrivateKey
    spec: MechanismSpec
    data: SiteData
    trainer: Trainer
    ledger: Ledger
    spool: Spool
    noise: NoiseSource

    def planned(self, job: str) -> Spend:
        """Return what a job still holds for its evaluation: training must leave it affordable."""
        done = any(spec == self.spec for spec, _ in self.ledger.spend(job=job))
        return [] if done else [(self.spec, self.spec.steps)]

    def report(self, asked: Invitation, vector: Vector) -> Sealed:
        """Return the signed noised counts of ``vector`` (d,) on the site's test part.

        Raises ``OverBudget``, ``Refused`` for a second attempt (the plan holds one) or another
        model under the first, and ``CollegiumError`` when bytes that may have left are gone.
        """
        if asked.attempt != 1:
            raise Refused("a second evaluation is not in the plan")
        reply = self._stored(asked)
        if reply is None:
            self.ledger.reserve(
                job=asked.job,
                round=EVALUATION,
                attempt=asked.attempt,
                base_sha256=asked.base_sha256,
                spec=self.spec,
                plan=self.plan,
                rng=self.noise.name,
            )
            reply = self._answer(asked, vector)
            self.spool.put(asked.job, EVALUATION, asked.attempt, reply)
        self.ledger.commit(
            job=asked.job, round=EVALUATION, attempt=asked.attempt, update_sha256=digest_of(reply)
        )
        return reply

    def _answer(self, asked: Invitation, vector: Vector) -> Sealed:
        right = self.trainer.right_answers(vector, self.data)
        stream = self.noise.stream(site=self.site, round=EVALUATION, attempt=asked.attempt, step=0)
        counts = noised_counts(self.spec, right, held_out_units(self.spec, self.data), stream)
        return Report(
            job=asked.job, site=self.site, model_sha256=asked.base_sha256, metrics=counts
        ).seal(self.key)

    def _stored(self, asked: Invitation) -> Sealed | None:
        reply = self.spool.get(asked.job, EVALUATION, asked.attempt)
        sent = self.ledger.committed(job=asked.job, round=EVALUATION, attempt=asked.attempt)
        if sent not in (None, digest_of(reply) if reply else ""):
            raise CollegiumError("this question was answered with bytes that are not here any more")
        if reply is not None:
            report = Report.open(reply, self.key.public_key())
            if report.model_sha256 != asked.base_sha256:
                raise CollegiumError("this attempt was already answered for another model")
        return reply
