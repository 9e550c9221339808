"""The privacy statement of a simulated run: what its sites' ledgers and noise sources hold."""

from __future__ import annotations

from typing import Any

from ..core.plan import Plan
from ..models import registry
from ..privacy.statement import Circumstances, SiteAccount, statement
from .consortium import Consortium

_TOLD = {
    "public": "metrics on public test parts",
    "private": "noised counts of the released model on each site's test part, once",
}


def stated(plan: Plan, consortium: Consortium, job: str, *, custom: bool) -> dict[str, Any] | None:
    """Return the statement of the run ``job``, None when privacy is off.

    ``custom``: the model was passed in, so that nobody knows what it was trained on.
    """
    if not plan.privacy.enabled:
        return None
    accounts = {
        name: SiteAccount(
            spec=consortium.specs[name],
            run=ledger.spend(job=job),
            jobs=ledger.spends(),
            ledger_head=ledger.head,
        )
        for name, ledger in consortium.ledgers.items()
    }
    trained_on = (
        "not known: the model was passed in by the caller"
        if custom
        else registry.card(plan.model.name).trained_on
    )
    told = Circumstances(
        rounds=plan.rounds.count,
        released=(
            "the trainable vector of every round (noised)",
            _TOLD[plan.evaluation.origin],
        ),
        base_model=plan.model.name,
        base_model_trained_on=trained_on,
        evaluation=plan.evaluation.origin,
        reproducible_noise=any(site.reproducible_noise for site in consortium.sites),
        device_noise=any(site.device_noise for site in consortium.sites),
    )
    return statement(accounts, told)
