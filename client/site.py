"""The site: gate in, policy, reserve, train, gate out, spool, commit. Its word is last."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..core.codec import codec
from ..core.digest import sha256_hex
from ..core.errors import CollegiumError, InvalidInput, Verdict, refuse
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec, spec_digest
from ..core.messages import BadMessage, Hello, Invitation, Report, Sealed, Update
from ..core.plan import Plan
from ..data.checks import check
from ..data.site_data import SiteData
from ..models.fitted import tail_fault
from ..privacy.bounds import update_norm_bound
from ..privacy.derive import questions
from ..privacy.ledger import Ledger
from ..privacy.noise import NoiseSource
from ..privacy.survey import LEAST_SCALE
from .decline import or_decline
from .evaluate import PrivateEvaluation
from .evidence import Evidence
from .gate import may_answer, may_leave, read_base, same_base
from .halt import Brake, Halt, OtherBase, give_up
from .identity import Identity
from .policy import Policy, steps_left
from .spool import Spool, digest_of
from .survey import Once, Surveys
from .train import Trainer

logger = logging.getLogger(__name__)


class Site:
    """One institution's side of a federation; every public method takes and returns signed bytes.

    No exception, path, count or value of a record leaves it: a refusal is a ``Decline`` with
    a code of a closed list.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        plan: Plan,
        spec: MechanismSpec,
        data: SiteData,
        trainer: Trainer,
        policy: Policy,
        ledger: Ledger,
        spool: Spool,
        noise: NoiseSource,
        step_bound: float,
        evidence: Evidence | None = None,
        brake: Brake | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``step_bound`` bounds how far one round moves the global model (L2 norm);
        ``evidence`` keeps, at the site, what the audit tests; ``brake`` what its people stopped.

        Raises ``InvalidInput`` for records that would make the site's answers depend on them.
        """
        ref = plan.site(identity.name)
        bound = ref.public_records
        if problems := check(data, model=plan.model, public_records=bound, unit=spec.unit):
            raise InvalidInput(f"the records of site '{identity.name}'", problems)
        self._lock = threading.Lock()  # two answers to one question would be two draws of noise
        self.name, self._key = identity.name, identity.key
        self._coordinator = identity.coordinator
        self._plan, self.spec, self._data = plan, spec, data
        self._plan_digest = plan.digest
        self._trainer, self._policy = trainer, policy
        self.ledger, self._spool, self._noise = ledger, spool, noise
        self._evidence, self._now = evidence, now
        self.brake = brake or Brake()
        self._step_bound = step_bound
        self._once = Once(
            site=self.name,
            plan=self._plan_digest,
            key=self._key,
            ledger=ledger,
            spool=spool,
            noise=noise,
            specs=questions(plan, ref),
            private=policy.private,
        )
        self._surveys = Surveys.of(plan, self._once, data, trainer)
        self._counts = PrivateEvaluation.of(plan, self._once, data, trainer)
        opened = trainer.open_vector[: trainer.layout.size]
        self._open_sha256 = sha256_hex(opened.astype("<f4").tobytes())
        self._open_norm = float(np.linalg.norm(opened.astype(np.float64)))
        self._codec = codec(plan.codec.name)
        self._update_bound = update_norm_bound(
            spec,
            size=trainer.layout.size,
            public_records=bound,
            learning_rate=plan.rounds.local_learning_rate,
        )

    @property
    def public_key(self) -> Ed25519PublicKey:
        """Return the key by which everyone knows this site."""
        return self._key.public_key()

    @property
    def reproducible_noise(self) -> bool:
        """Return whether a seed determines this site's noise: then there is no guarantee."""
        return self._noise.reproducible

    @property
    def device_noise(self) -> bool:
        """Return whether a device's generator, not AES, draws this site's noise."""
        return self._trainer.device_noise

    @property
    def records(self) -> SiteData:
        """Return this site's records: for its own approval, never for anyone outside."""
        return self._data

    @property
    def device(self) -> str:
        """Return the torch device that trains."""
        return self._trainer.device

    @property
    def busy(self) -> bool:
        """Return whether a question is being answered that needs the records."""
        return self._lock.locked()

    def cancel(self, job: str) -> None:
        """Stop a job for good: a training ends before its next step, open reserves are given up."""
        self.brake.cancel(job)
        with self._lock:
            if self._policy.private:
                give_up(self.ledger, job, "cancelled by the site")

    def hello(self, request: Sealed) -> Sealed:
        """Answer who this site is, under which plan, and where its ledger stands."""
        asked = Hello.open(request, self._coordinator)
        return Hello(
            job=asked.job,
            site=self.name,
            plan=self._plan_digest,
            nonce=asked.nonce,
            ledger_head=self.ledger.head,
        ).seal(self._key)

    def train(self, request: Sealed) -> Sealed:
        """Answer an invitation with an update, or with the code under which it is declined.

        A repeated invitation gets the stored bytes. Raises ``BadMessage`` when the invitation
        is not the coordinator's: to a stranger nothing is answered.
        """
        invitation = Invitation.open(request, self._coordinator)
        return self._or_decline(invitation, partial(self._train_once, invitation, request))

    def evaluate(self, request: Sealed) -> Sealed:
        """Answer how good the given model is on this site's test part, as the plan allows.

        Metrics where that part is public, else noised counts from the site's budget; or, of a
        job's questions beside its rounds, the noised sums of a survey. Raises ``BadMessage`` for a
        question that is not the coordinator's, that the plan does not hold, or that holds no
        model; and for an evaluation that policy or budget forbid.
        """
        asked = Invitation.open(request, self._coordinator)
        if self._surveys.is_asked(asked):
            return self._or_decline(asked, partial(self._survey, asked, request.payload))
        verdict = self._may_answer(asked)
        if not verdict.ok:
            raise BadMessage(verdict.code)
        verdict, vector = self._read(asked, request.payload, calibrated=True)
        if not verdict.ok:
            raise BadMessage(verdict.code)
        with self._lock:
            if self._plan.evaluation.origin != "public":
                return self._count(asked, vector)
            if not self._policy.public_test:
                raise BadMessage("policy")
            metrics = self._metrics(vector)
        return Report(
            job=asked.job, site=self.name, model_sha256=asked.base_sha256, metrics=metrics
        ).seal(self._key)

    def _or_decline(self, asked: Invitation, answer: Callable[[], Sealed | Verdict]) -> Sealed:
        with self._lock:
            return or_decline(asked, answer, site=self.name, key=self._key)

    def _may_answer(self, asked: Invitation) -> Verdict:
        """Return whether this is a question for this site, in time, that its policy allows."""
        verdict = may_answer(asked, self.name, self._plan_digest, self.ledger, now=self._now())
        if verdict.ok and self.brake.stops(asked.job):
            verdict = refuse("cancelled", "the site's own people have stopped it")
        return self._policy.check(self._plan, self.spec) if verdict.ok else verdict

    def _train_once(self, invitation: Invitation, request: Sealed) -> Sealed | Verdict:
        verdict, base = self._admit(invitation, request.payload)
        if not verdict.ok:
            return verdict
        return self._stored(invitation) or self._spend_and_train(invitation, base, request)

    def _admit(self, invitation: Invitation, payload: bytes) -> tuple[Verdict, Vector]:
        verdict = self._may_answer(invitation)
        if verdict.ok:
            if not 1 <= invitation.round <= self._plan.rounds.count or invitation.attempt < 1:
                verdict = refuse("round", "the plan has no such round")
            else:
                verdict = steps_left(
                    self._policy,
                    self.ledger,
                    self._plan_digest,
                    self.spec,
                    job=invitation.job,
                    round=invitation.round,
                    attempt=invitation.attempt,
                )
        if not verdict.ok:
            return verdict, np.zeros(0, dtype=np.float32)
        reach = self._open_norm + (invitation.round - 1) * self._step_bound
        return self._read(invitation, payload, norm_bound=1.01 * reach + 1e-6)

    def _read(
        self,
        asked: Invitation,
        payload: bytes,
        *,
        norm_bound: float = math.inf,
        calibrated: bool = False,
    ) -> tuple[Verdict, Vector]:
        fitted = self._trainer.fitted
        return read_base(
            asked,
            payload,
            self._trainer.layout,
            open_sha256=self._open_sha256,
            norm_bound=norm_bound,
            constants=fitted.size,
            fault=partial(tail_fault, fitted, least_scale=LEAST_SCALE, calibrated=calibrated),
        )

    def _survey(self, asked: Invitation, payload: bytes) -> Sealed | Verdict:
        """Return noised sums, charged to the ledger; common statistics are of no model."""
        verdict, vector = self._may_answer(asked), np.zeros(0, dtype=np.float32)
        if verdict.ok and self._surveys.is_of_a_model(asked):
            verdict, vector = self._read(asked, payload)
        elif verdict.ok and (payload or asked.base_sha256 != sha256_hex(b"")):
            verdict = refuse("base", "statistics are asked for with a model")
        return self._surveys.answer(asked, vector) if verdict.ok else verdict

    def _stored(self, invitation: Invitation) -> Sealed | None:
        """Return the reply of an earlier try; once bytes may have left, no others ever may."""
        reply = self._spool.get(invitation.job, invitation.round, invitation.attempt)
        sent = self.ledger.committed(
            job=invitation.job, round=invitation.round, attempt=invitation.attempt
        )
        if sent not in (None, digest_of(reply) if reply else ""):
            raise CollegiumError("this attempt was answered with bytes that are not here any more")
        if reply is None:
            if not same_base(self.ledger, invitation):
                raise OtherBase
            return None
        update = Update.open(reply, self.public_key)
        if update.base_sha256 != invitation.base_sha256:
            raise OtherBase
        self._commit(invitation, reply)
        return reply

    def _spend_and_train(self, invitation: Invitation, base: Vector, request: Sealed) -> Sealed:
        """Reserve on disk, then the first gradient; spool on disk, then commit, then answer."""
        if self._policy.private:
            charged = self.ledger.reserve(
                job=invitation.job,
                round=invitation.round,
                attempt=invitation.attempt,
                base_sha256=invitation.base_sha256,
                spec=self.spec,
                plan=self._plan_digest,
                rng=self._noise.name,
                planned=self._once.planned(invitation.job),
            )
            if charged:  # a question that costs nothing writes nothing
                self._witness(invitation, request)
        metrics = self._metrics(base) if invitation.evaluate else {}
        vector = self._train_or_give_up(invitation, base)
        reply = Update(
            job=invitation.job,
            site=self.name,
            round=invitation.round,
            attempt=invitation.attempt,
            base_sha256=invitation.base_sha256,
            layout=self._trainer.layout.digest,
            spec=spec_digest(self.spec),
            ledger_head=self.ledger.head,
            codec=self._codec.name,
            metrics=metrics,
        ).seal(self._key, self._codec.encode(vector))
        self._spool.put(invitation.job, invitation.round, invitation.attempt, reply)
        self._commit(invitation, reply)
        return reply

    def _witness(self, invitation: Invitation, request: Sealed) -> None:
        """Keep the coordinator's signature over the head that it has seen of this ledger."""
        if invitation.site_ledger_head:
            self.ledger.witness(
                head=invitation.site_ledger_head,
                key=self._coordinator,
                message=Invitation.signed_bytes(request),
                signature=request.signature,
            )

    def _train_or_give_up(self, invitation: Invitation, base: Vector) -> Vector:
        """Return what may leave.

        A training that fails may have failed because of its records: another draw under the same
        charge would be a chosen one, so the reserve is given up. One that its deadline, a kill
        or a full disk ended goes on under its charge, since nothing of it has left.
        """
        try:
            vector = self._train(invitation, base)
            verdict = may_leave(vector, self._trainer.layout, self._update_bound)
            if not verdict.ok:
                raise CollegiumError(verdict.reason)
        except Halt:
            raise
        except Exception:
            if self._policy.private:
                key = {"round": invitation.round, "attempt": invitation.attempt}
                self.ledger.abort(job=invitation.job, note="training failed", **key)
            raise
        return vector

    def _train(self, invitation: Invitation, base: Vector) -> Vector:
        evidence = self._evidence
        if evidence is not None:
            evidence.begin(job=invitation.job, round=invitation.round, attempt=invitation.attempt)
        until = self._now() + self._plan.rounds.deadline_s
        vector = self._trainer.train(
            base,
            self._data,
            self.spec,
            self._noise,
            site=self.name,
            round=invitation.round,
            attempt=invitation.attempt,
            observer=evidence,
            before_step=self.brake.watch(invitation.job, until, self._now),
        )
        if evidence is not None:
            evidence.end(vector, codec=self._codec.name)
        return vector

    def _commit(self, invitation: Invitation, reply: Sealed) -> None:
        if self._policy.private:
            self.ledger.commit(
                job=invitation.job,
                round=invitation.round,
                attempt=invitation.attempt,
                update_sha256=digest_of(reply),
            )

    def _count(self, asked: Invitation, vector: Vector) -> Sealed:
        """Return noised counts, charged to the ledger, where the policy lets accuracy be told."""
        if self._counts is None or not self._may_tell("accuracy"):
            raise BadMessage("policy")
        try:
            return self._counts.report(asked, vector)
        except (CollegiumError, OtherBase) as error:
            logger.warning("site %s does not evaluate: %s", self.name, error)
            raise BadMessage("budget") from None

    def _may_tell(self, metric: str) -> bool:
        return self._policy.metrics is None or metric in self._policy.metrics

    def _metrics(self, vector: Vector) -> dict[str, float]:
        if self._plan.evaluation.origin != "public" or not self._policy.public_test:
            return {}
        found = self._trainer.evaluate(vector, self._data)
        return {name: value for name, value in found.items() if self._may_tell(name)}
