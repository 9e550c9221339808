"""The site's word on a plan: caps that a coordinator can never raise."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ACCEPT, Verdict, refuse
from ..core.mechanism import Budget, MechanismSpec
from ..core.plan import Plan


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
        return [
            refuse(
                f"policy-{code}",
                f"{what} is outside this site's policy",
                "agree on another plan, or change the site's own policy",
            )
            for holds, code, what in rules
            if not holds
        ]
