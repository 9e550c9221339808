"""Hostile plans: whatever a coordinator asks, in whatever order, no site spends beyond its policy.

A site is what it is in ``client/site.py`` without the model: ``Policy.check``, the mechanism that
the site derives from the plan itself, and a real reserve on a real ledger. Terms come from a
grid, because every new mechanism costs the accountant up to a second.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from collegium.client.policy import Policy
from collegium.core.errors import CollegiumError, OverBudget, Refused
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.plan import ModelRef, Plan, Privacy, Rounds, SiteRef
from collegium.core.signing import generate_key
from collegium.privacy import ledger_verify
from collegium.privacy.derive import mechanism, noise_multiplier
from collegium.privacy.ledger import Ledger

PLANS_PER_SITE = 40
BUDGET = Budget(epsilon=2.0, delta=1e-4, unit="record", relation="add-or-remove-one")
POLICY = Policy(
    budget=BUDGET,
    max_steps=40,
    max_sampling_rate=0.3,
    max_clip_norm=2.0,
    models=("tabular:linear",),
    min_sites=2,
)
NOISE = (0.7, 1.5, 3.0, 6.0, 12.0, 40.0)
MODERATE = Plan(
    consortium="hostile",
    sites=tuple(SiteRef(name=f"s{number}", public_records=300) for number in range(3)),
    model=ModelRef(name="tabular:linear", task="classification", classes=("ill", "well"),
                   bounds={"age": (-1.0, 1.0)}),
    rounds=Rounds(count=8),
    privacy=Privacy(epsilon=1.0, delta=1e-4, sampling_rate=0.2),
)  # fmt: skip


@dataclass(slots=True)
class Seen:
    """What was asked and what came of it; ``beyond`` must stay empty."""

    plans: int = 0
    invalid: int = 0
    refused_by_policy: dict[str, int] = field(default_factory=dict[str, int])
    invitations: int = 0
    charged: int = 0
    over_budget: int = 0
    refused: int = 0
    largest_share: float = 0.0
    beyond: list[str] = field(default_factory=list[str])


def run(plans: int, seed: int) -> Seen:
    """Send so many plans to sites that start afresh every ``PLANS_PER_SITE``."""
    dice, seen = random.Random(seed), Seen()
    while seen.plans < plans:
        folder = Path(tempfile.mkdtemp(prefix="plans"))
        try:
            _one_site(folder, min(PLANS_PER_SITE, plans - seen.plans), dice, seen)
        finally:
            shutil.rmtree(folder)
    return seen


def _one_site(folder: Path, plans: int, dice: random.Random, seen: Seen) -> None:
    key = generate_key()
    file, anchor = folder / "l.sqlite", folder / "a" / "l.anchor"
    ledger = Ledger(file, "asset", BUDGET, key, anchor=anchor)
    for _ in range(plans):
        seen.plans += 1
        if dice.random() < 0.1:  # the process stops and starts in between
            ledger.close()
            ledger = Ledger(file, "asset", BUDGET, key, anchor=anchor)
        try:
            plan = hostile(dice)
        except CollegiumError:  # the plan's own checks
            seen.invalid += 1
            continue
        for spec in _specs(plan, dice):
            verdict = POLICY.check(plan, spec)
            if not verdict.ok:
                count = seen.refused_by_policy.get(verdict.code, 0)
                seen.refused_by_policy[verdict.code] = count + 1
                continue
            seen.beyond += _beyond_policy(plan, spec)
            _invite(ledger, plan, spec, dice, seen)
    share = ledger.enforced() / BUDGET.epsilon
    seen.largest_share = max(seen.largest_share, share)
    ledger.close()
    try:  # the auditor's script counts for itself, row by row
        ledger_verify.verify(file, key.public_key(), anchor=anchor)
    except ledger_verify.LedgerError as error:
        seen.beyond.append(str(error))


def hostile(dice: random.Random) -> Plan:
    """Return a moderate plan with some of its terms pushed up, sideways or out of range."""
    privacy, rounds, plan = MODERATE.privacy, MODERATE.rounds, MODERATE
    for _ in range(dice.randrange(1, 4)):
        match dice.randrange(11):
            case 0:
                privacy = replace(privacy, epsilon=dice.choice([0.5, 1.0, 2.0, 8.0, 100.0]))
            case 1:
                privacy = replace(privacy, delta=dice.choice([1e-6, 1e-4, 1e-3, 0.5]))
            case 2:
                privacy = replace(privacy, sampling_rate=dice.choice([0.1, 0.2, 0.3, 0.9, 1.0]))
            case 3:
                privacy = replace(privacy, clip_norm=dice.choice([0.1, 2.0, 2.1, 1e6]))
            case 4:
                privacy = replace(privacy, batch_cap=dice.choice([0, 150, 200]))
            case 5:
                privacy = replace(privacy, unit=dice.choice(["record", "patient"]))
            case 6:
                privacy = replace(privacy, relation=dice.choice(
                    ["add-or-remove-one", "replace-special", "replace-one"]))  # fmt: skip
            case 7:
                privacy = replace(privacy, enabled=dice.random() < 0.5)
            case 8:
                steps = dice.choice([1, 2, 40, 1000])
                rounds = replace(rounds, count=dice.choice([1, 8, 20, 100_000]), local_steps=steps)
            case 9:
                plan = replace(plan, sites=plan.sites[: dice.randrange(1, 4)])
            case _:
                name = dice.choice(["tabular:linear", "torchvision:resnet18"])
                plan = replace(plan, model=replace(plan.model, name=name))
    return replace(plan, privacy=privacy, rounds=rounds)


def _specs(plan: Plan, dice: random.Random) -> Iterator[MechanismSpec]:
    """Yield the mechanism that the site derives, and now and then one of a broken derivation.

    The noise of a plan that keeps the moderate terms is calibrated as a site does it; any other
    takes its noise from a grid, often far too little: the ledger must hold whatever it is.
    """
    terms, moderate = plan.privacy, MODERATE.privacy
    calibrated = terms == replace(moderate, clip_norm=terms.clip_norm)
    if calibrated and plan.rounds.count * plan.rounds.local_steps in (8, 16):
        noise = noise_multiplier(plan)
    else:
        noise = dice.choice(NOISE)
    yield mechanism(plan, plan.sites[0], noise_multiplier=noise, trainable_digest="sha256:t")
    if dice.random() < 0.1:
        noise = dice.choice([0.0, 0.5, 1.0])
        yield mechanism(plan, plan.sites[0], noise_multiplier=noise, trainable_digest="sha256:t")


def _beyond_policy(plan: Plan, spec: MechanismSpec) -> list[str]:
    """Return what a plan that the policy has let pass should not have: checked anew, by hand."""
    rules = {
        "steps": plan.rounds.count * spec.steps <= 40,
        "rate": spec.sampling_rate <= 0.3,
        "clip": spec.clip_norm <= 2.0,
        "noise": spec.noise_multiplier > 0,
        "unit": (spec.unit, spec.relation) == ("record", "add-or-remove-one"),
        "delta": spec.delta <= 1e-4,
        "model": plan.model.name == "tabular:linear",
        "sites": len(plan.sites) >= 2,
    }
    return [name for name, holds in rules.items() if not holds]


def _invite(
    ledger: Ledger, plan: Plan, spec: MechanismSpec, dice: random.Random, seen: Seen
) -> None:
    """Ask for rounds as a hostile coordinator would: repeated, out of order, as other jobs."""
    job = dice.choice(["job-a", "job-b", plan.digest[7:39]])
    for _ in range(dice.randrange(1, 7)):
        seen.invitations += 1
        number = dice.randrange(1, plan.rounds.count + 1)
        try:
            charged = ledger.reserve(
                job=job,
                round=number,
                attempt=dice.randrange(1, 3),
                plan=plan.digest,
                base_sha256=f"sha256:{dice.randrange(2)}",
                spec=spec,
            )
        except OverBudget:
            seen.over_budget += 1
        except Refused:
            seen.refused += 1
        else:
            seen.charged += charged
        if ledger.enforced() > BUDGET.epsilon:
            seen.beyond.append(f"epsilon {ledger.enforced():.6f}")
