"""The site's word on a plan: caps that a coordinator can never raise."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ACCEPT, Verdict, refuse
from ..core.mechanism import Budget, MechanismSpec
from ..core.plan import Plan
from ..privacy.ledger import Ledger

EVALUATION = 0
"""Training rounds count from 1: the reserve of the private evaluation is a job's round 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What this site allows; an empty tuple of models or plans allows any.

    ``metrics`` are the names that may be told of the test part (None: any); ``public_test`` is
    the site's own word that its test part is public: a plan cannot declare it so.
    """

    budget: Budget
    max_steps: int
    max_sampling_rate: float
    max_clip_norm: float
    models: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    min_sites: int = 1
    metrics: tuple[str, ...] | None = None
    public_test: bool = False
    private: bool = True

    def check(self, plan: Plan, spec: MechanismSpec) -> Verdict:
        """Return the first rule that the plan breaks, against what will be executed."""
        return next(iter(self.objections(plan, spec)), ACCEPT)

    def objections(self, plan: Plan, spec: MechanismSpec) -> list[Verdict]:
        """Return every rule that the plan breaks, in the order of ``check``."""
        total_steps = plan.rounds.count * spec.steps
        rules = (
            (not self.models or plan.model.name in self.models, "model", "the model"),
            (not self.plans or plan.digest in self.plans, "plan", "the plan's digest"),
            (len(plan.sites) >= self.min_sites, "sites", "the number of sites"),
            (total_steps <= self.max_steps, "steps", "the number of noisy steps"),
            (spec.sampling_rate <= self.max_sampling_rate, "rate", "the sampling rate"),
            (spec.clip_norm <= self.max_clip_norm, "clip", "the clip norm"),
            (
                spec.noise_multiplier > 0 or not self.private,
                "noise",
                "training without noise",
            ),
            (
                (spec.unit, spec.relation) == (self.budget.unit, self.budget.relation),
                "unit",
                "the unit or neighbouring relation",
            ),
            (spec.delta <= self.budget.delta, "delta", "delta"),
        )
        return [_outside(code, what) for holds, code, what in rules if not holds]


def steps_left(
    policy: Policy,
    ledger: Ledger,
    plan_digest: str,
    spec: MechanismSpec,
    *,
    job: str,
    round: int,
    attempt: int,
) -> Verdict:
    """Return whether one more attempt keeps the noisy steps of a plan within ``max_steps``.

    Every training reserve under the plan's digest counts, whatever its job, round and attempt
    and however it ended: a coordinator that repeats a question pays for it like for a new one.
    An attempt that the ledger holds is not counted again. Call it under the lock under which
    the reserve is then written.
    """
    if not policy.private:  # nothing is reserved, so nothing can be counted
        return ACCEPT
    reserved = [
        entry
        for entry in ledger.entries()
        if entry.kind == "reserve" and entry.plan == plan_digest and entry.round != EVALUATION
    ]
    if any((e.job, e.round, e.attempt) == (job, round, attempt) for e in reserved):
        return ACCEPT
    steps = sum(entry.steps for entry in reserved) + spec.steps
    return ACCEPT if steps <= policy.max_steps else _outside("steps", "the number of noisy steps")


def _outside(code: str, what: str) -> Verdict:
    return refuse(
        f"policy-{code}",
        f"{what} is outside this site's policy",
        "agree on another plan, or change the site's own policy",
    )
