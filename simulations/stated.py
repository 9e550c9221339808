"""The privacy statement of a simulated run: what its sites' ledgers and noise sources hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..models import registry
from ..privacy.ledger import Ledger
from ..privacy.statement import Circumstances, SiteAccount, asked_once, released, statement
from .consortium import Consortium


def stated(plan: Plan, consortium: Consortium, job: str, *, custom: bool) -> dict[str, Any] | None:
    """Return the statement of the run ``job``, None when privacy is off.

    ``custom``: the model was passed in, so that nobody knows what it was trained on.
    """
    if not plan.privacy.enabled:
        return None
    return stated_by(
        plan,
        {
            name: account(ledger, consortium.specs[name], job)
            for name, ledger in consortium.ledgers.items()
        },
        reproducible_noise=any(site.reproducible_noise for site in consortium.sites),
        device_noise=any(site.device_noise for site in consortium.sites),
        custom=custom,
    )


def account(ledger: Ledger, spec: MechanismSpec, job: str) -> SiteAccount:
    """Return what one site's own ledger says of the run ``job`` and of all others."""
    return SiteAccount(
        spec=spec, run=ledger.spend(job=job), jobs=ledger.spends(), ledger_head=ledger.head
    )


def stated_by(
    plan: Plan,
    accounts: Mapping[str, SiteAccount],
    *,
    reproducible_noise: bool,
    device_noise: bool,
    custom: bool = False,
) -> dict[str, Any]:
    """Return the statement of a run on this machine, from its sites' own accounts."""
    trained_on = (
        "not known: the model was passed in by the caller"
        if custom
        else registry.describe(plan.model).trained_on
    )
    told = Circumstances(
        rounds=plan.rounds.count,
        released=released(plan),
        once=asked_once(plan),
        base_model=plan.model.name,
        base_model_trained_on=trained_on,
        evaluation=plan.evaluation.origin,
        reproducible_noise=reproducible_noise,
        device_noise=device_noise,
    )
    return statement(accounts, told)
