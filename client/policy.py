"""The site's word on a plan: caps that a coordinator can never raise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..core.errors import ACCEPT, Verdict, refuse
from ..core.mechanism import Budget, MechanismSpec
from ..core.messages import ONCE
from ..core.plan import Plan, SiteRef
from ..core.plugins import is_plugin
from ..privacy.accountant import filter_epsilon
from ..privacy.derive import questions
from ..privacy.ledger import Ledger
from ..privacy.ledger_rows import LedgerEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What this site allows; an empty tuple of models or plans allows any, of plug-ins none.

    ``metrics`` are the names that may be told of the test part (None: any); ``public_test`` is
    the site's own word that its test part is public: a plan cannot declare it so.
    ``max_steps`` bounds what one plan executes here in all, repeated rounds and further jobs
    included (``steps_left``).
    """

    budget: Budget
    max_steps: int
    max_sampling_rate: float
    max_clip_norm: float
    models: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    min_sites: int = 1
    plugins: tuple[str, ...] = ()
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
            (plugins_of(plan) <= set(self.plugins), "model", "a plug-in of the plan"),
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
                not self.private or plan.privacy.enabled or not _asks_once(plan),
                "noise",
                "statistics or calibration without noise",
            ),
            (
                (spec.unit, spec.relation) == (self.budget.unit, self.budget.relation),
                "unit",
                "the unit or neighbouring relation",
            ),
            (spec.delta <= self.budget.delta, "delta", "delta"),
        )
        return [_outside(code, what) for holds, code, what in rules if not holds]


def _asks_once(plan: Plan) -> bool:
    """Return whether a site's records are summed beside the training."""
    return plan.statistics is not None or plan.calibration is not None


def plugins_of(plan: Plan) -> set[str]:
    """Return the plug-ins whose code a plan would run at a site."""
    return {name for name in (plan.model.name, plan.model.task) if is_plugin(name)}


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
    reserved = _training(ledger.entries(), plan_digest)
    if any((e.job, e.round, e.attempt) == (job, round, attempt) for e in reserved):
        return ACCEPT
    steps = sum(entry.steps for entry in reserved) + spec.steps
    return ACCEPT if steps <= policy.max_steps else _outside("steps", "the number of noisy steps")


def at_most(
    policy: Policy,
    plan: Plan,
    site: SiteRef,
    spec: MechanismSpec,
    entries: Sequence[LedgerEntry] = (),
) -> float:
    """Return the epsilon that the asset can have reached when this plan may go no further.

    ``entries`` are the ledger's so far. It holds however often a round is repeated and however
    many jobs the coordinator makes of the plan. What a job asks once (statistics, calibration, a
    private evaluation) is charged once per job, so that under such a plan the asset's whole cap
    is the answer.
    """
    cap = policy.budget.epsilon
    if questions(plan, site):
        return cap
    left = policy.max_steps - sum(e.steps for e in _training(entries, plan.digest))
    more = max(left, 0) // spec.steps * spec.steps
    spent = [(e.spec, e.steps) for e in entries if e.kind == "reserve" and e.spec is not None]
    return min(cap, filter_epsilon([*spent, (spec, more)], policy.budget.delta))


def _training(entries: Iterable[LedgerEntry], plan_digest: str) -> list[LedgerEntry]:
    return [
        entry
        for entry in entries
        if entry.kind == "reserve" and entry.plan == plan_digest and entry.round != ONCE
    ]


def _outside(code: str, what: str) -> Verdict:
    return refuse(
        f"policy-{code}",
        f"{what} is outside this site's policy",
        "agree on another plan, or change the site's own policy",
    )
