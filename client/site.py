"""The site: gate in, policy, reserve, train, gate out, spool, commit. Its word is last."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..core.codec import codec
from ..core.digest import sha256_hex
from ..core.errors import CollegiumError, InvalidInput, OverBudget, Verdict, refuse
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec, spec_digest
from ..core.messages import BadMessage, Decline, Hello, Invitation, Report, Sealed, Update
from ..core.plan import Plan
from ..data.checks import check
from ..data.site_data import SiteData
from ..privacy.bounds import update_norm_bound
from ..privacy.derive import evaluation_mechanism
from ..privacy.ledger import Ledger
from ..privacy.noise import NoiseSource
from .evaluate import PrivateEvaluation
from .evidence import Evidence
from .gate import answered_another, may_leave, read_base, same_base
from .halt import Brake, Halt, OtherBase, give_up
from .identity import Identity
from .policy import Policy, steps_left
from .spool import Spool, digest_of
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
        classes, bound = len(plan.model.classes), ref.public_records
        if problems := check(
            data,
            classes=classes,
            public_records=bound,
            unit=spec.unit,
            task=plan.model.task,
        ):
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
        counting = evaluation_mechanism(plan, ref)
        self._counts = counting and PrivateEvaluation(
            site=self.name,
            plan=self._plan_digest,
            key=self._key,
            spec=counting,
            data=data,
            trainer=trainer,
            ledger=ledger,
            spool=spool,
            noise=noise,
        )
        opened = trainer.open_vector
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
        try:
            with self._lock:
                verdict, base = self._admit(invitation, request.payload)
                if verdict.ok:
                    stored = self._stored(invitation)
                    reply = stored or self._spend_and_train(invitation, base, request)
                    logger.info("round %d, attempt %d: ok", invitation.round, invitation.attempt)
                    return reply
        except Halt as halt:
            verdict = refuse(halt.code, "stopped between two steps; nothing has left")
        except OverBudget as error:
            verdict = refuse("budget", str(error))
        except OtherBase:
            verdict = refuse("base", "this attempt belongs to another base model")
        except (CollegiumError, BadMessage) as error:
            verdict = refuse("internal", str(error))
        except Exception:
            logger.exception("site %s failed in round %d", self.name, invitation.round)
            verdict = refuse("internal", "see this site's own log")
        logger.warning(
            "site %s sits round %d out: %s (%s)",
            self.name,
            invitation.round,
            verdict.code,
            verdict.reason,
        )
        return Decline(
            job=invitation.job,
            site=self.name,
            round=invitation.round,
            attempt=invitation.attempt,
            code=verdict.code,
        ).seal(self._key)

    def evaluate(self, request: Sealed) -> Sealed:
        """Answer how good the given model is on this site's test part, as the plan allows.

        Metrics where that part is public, else noised counts from the site's budget. Raises
        ``BadMessage`` for a question that is not the coordinator's, holds no model, or that
        policy or budget forbid to answer.
        """
        asked = Invitation.open(request, self._coordinator)
        if asked.plan != self._plan_digest or asked.site != self.name:
            raise BadMessage("plan")
        if not self._policy.check(self._plan, self.spec).ok or self.brake.stops(asked.job):
            raise BadMessage("policy")
        if self._now() > asked.deadline:
            raise BadMessage("deadline")
        seen = asked.site_ledger_head
        if not self.ledger.knows(seen) if seen else answered_another(self.ledger, asked):
            raise BadMessage("ledger")
        verdict, vector = read_base(
            asked,
            request.payload,
            self._trainer.layout,
            open_sha256=self._open_sha256,
            norm_bound=math.inf,
        )
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

    def _admit(self, invitation: Invitation, payload: bytes) -> tuple[Verdict, Vector]:
        nothing = np.zeros(0, dtype=np.float32)
        if invitation.site != self.name:
            return refuse("roster", "the invitation names another site"), nothing
        if invitation.plan != self._plan_digest:
            return refuse("plan", "the invitation names another plan"), nothing
        if not 1 <= invitation.round <= self._plan.rounds.count or invitation.attempt < 1:
            return refuse("round", "the plan has no such round"), nothing
        if self._now() > invitation.deadline:
            return refuse("deadline", "the round is already over"), nothing
        self.brake.check(invitation.job)
        seen = invitation.site_ledger_head
        if seen and not self.ledger.knows(seen):
            return refuse("ledger", "the coordinator has seen entries that are lost here"), nothing
        if not seen and answered_another(self.ledger, invitation):
            return refuse("ledger", "the coordinator does not say what it has seen here"), nothing
        verdict = self._policy.check(self._plan, self.spec)
        if verdict.ok:
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
            return verdict, nothing
        reach = self._open_norm + (invitation.round - 1) * self._step_bound
        return read_base(
            invitation,
            payload,
            self._trainer.layout,
            open_sha256=self._open_sha256,
            norm_bound=1.01 * reach + 1e-6,
        )

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
                planned=self._counts.planned(invitation.job) if self._counts else (),
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
        except CollegiumError as error:
            logger.warning("site %s does not evaluate: %s", self.name, error)
            raise BadMessage("budget") from None

    def _may_tell(self, metric: str) -> bool:
        return self._policy.metrics is None or metric in self._policy.metrics

    def _metrics(self, vector: Vector) -> dict[str, float]:
        if self._plan.evaluation.origin != "public" or not self._policy.public_test:
            return {}
        found = self._trainer.evaluate(vector, self._data)
        return {name: value for name, value in found.items() if self._may_tell(name)}
