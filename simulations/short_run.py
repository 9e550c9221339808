"""A whole run without server, Grid or store: the sites asked one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.codec import codec
from ..core.digest import sha256_hex
from ..core.files import write_atomic
from ..core.layout import Vector
from ..core.messages import ONCE, BadMessage, Decline, Invitation, Sealed, Update
from ..core.plan import Plan
from ..core.plan_file import write_plan
from ..data.site_data import SiteData
from ..models import registry
from ..privacy.accountant import Spend
from ..privacy.noise import Floats
from ..server.drive import released_vector
from ..server.survey import (
    Asked,
    admit,
    calibration_asked,
    fit_calibration,
    fit_statistics,
    set_values,
    statistics_asked,
)
from ..server.task import finish
from ..strategies.catalog import strategy_for
from .consortium import Consortium, ModelFactory, assemble
from .workspace import run_identity, save_stage

JOB = "a0d17" + "0" * 27
"""Every short run is the first job of its own folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSeen:
    """What the coordinator sees of a round: the base (d,) and each site's update (d,)."""

    base: Vector
    updates: Mapping[str, Vector]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortRun:
    """All rounds, the released vector (d,), and what each site's ledger was charged."""

    rounds: tuple[RoundSeen, ...]
    vector: Vector
    spends: Mapping[str, Spend]


def short_run(
    plan: Plan,
    records: Mapping[str, SiteData],
    folder: Path,
    *,
    factory: ModelFactory | None = None,
) -> ShortRun:
    """Run the plan on these records through real sites, ledgers, codec and strategy.

    ``folder`` becomes a run directory that the audit can read. A site that sits out is left out.
    """
    write_atomic(folder / "plan.toml", write_plan(plan).encode())
    save_stage(folder, "begun", {"identity": run_identity(plan, custom=factory is not None)})
    consortium = assemble(plan, records, factory or (lambda: registry.build(plan.model)), folder)
    try:
        rounds, vector = _rounds(plan, consortium, folder)
        spends = {name: ledger.spend(job=JOB) for name, ledger in consortium.ledgers.items()}
    finally:
        consortium.close()
    return ShortRun(rounds=rounds, vector=vector, spends=spends)


def _rounds(
    plan: Plan, consortium: Consortium, folder: Path
) -> tuple[tuple[RoundSeen, ...], Vector]:
    strategy, base = strategy_for(plan), consortium.opened
    state, size = strategy.init(consortium.layout), consortium.layout.size
    seen: list[RoundSeen] = []
    heads = {site.name: site.ledger.head for site in consortium.sites}  # as each hello tells
    if plan.statistics is not None:
        asked = statistics_asked(plan)
        found = fit_statistics(plan, asked, _survey(plan, asked, consortium, heads))
        base = _fitted(consortium, base, found)
    for number in range(1, plan.rounds.count + 1):
        kept = folder / "updates" / f"round-{number:06d}"
        updates = _ask(plan, consortium, base, number=number, kept=kept, heads=heads)
        seen.append(RoundSeen(base=base, updates=updates))
        if not updates:
            continue
        for name, update in updates.items():
            state = strategy.fold(state, update, plan.site(name).fold_weight)
        base, state = finish(strategy, state, base, size=size)
    vector = released_vector(base, state)
    if plan.calibration is not None:
        asked = calibration_asked(plan, vector)
        found = fit_calibration(plan, asked, _survey(plan, asked, consortium, heads))
        vector = _fitted(consortium, vector, found)
    return tuple(seen), vector


def _fitted(consortium: Consortium, vector: Vector, found: Mapping[str, Any]) -> Vector:
    return set_values(consortium.layout, consortium.fitted, vector, found["values"])


def _survey(
    plan: Plan, asked: Asked, consortium: Consortium, heads: dict[str, str]
) -> dict[str, Floats]:
    """Return the sums of the sites that answer a question beside the rounds."""
    found: dict[str, Floats] = {}
    for site in consortium.sites:
        question = Invitation(
            job=JOB,
            site=site.name,
            plan=plan.digest,
            round=ONCE,
            attempt=asked.question,
            base_sha256=asked.base_sha256,
            layout=consortium.layout.digest,
            deadline=time.time() + 3600,
            nonce="once",
            site_ledger_head=heads[site.name],
        ).seal(consortium.key, asked.payload)
        reply = site.evaluate(question)
        member = consortium.members[site.name]
        _, survey, sums = admit(JOB, member, asked, site.name, reply)
        if survey is not None:
            heads[site.name], found[site.name] = survey.ledger_head, sums
    return found


def _ask(
    plan: Plan,
    consortium: Consortium,
    base: Vector,
    *,
    number: int,
    kept: Path,
    heads: dict[str, str],
) -> dict[str, Vector]:
    """Return the answers of one round; ``heads`` are the ledgers' as seen last, and are kept so."""
    payload = base.astype("<f4").tobytes()
    found: dict[str, Vector] = {}
    for site in consortium.sites:
        question = Invitation(
            job=JOB,
            site=site.name,
            plan=plan.digest,
            round=number,
            attempt=1,
            base_sha256=sha256_hex(payload),
            layout=consortium.layout.digest,
            deadline=time.time() + 3600,
            nonce=f"{number}",
            site_ledger_head=heads[site.name],
        ).seal(consortium.key, payload)
        reply = site.train(question)
        if _declined(reply, consortium, site.name):
            continue
        update = Update.open(reply, site.public_key)
        heads[site.name] = update.ledger_head
        _keep(kept, site.name, reply)
        found[site.name] = codec(update.codec).decode(reply.payload, consortium.layout.size)
    return found


def _declined(reply: Sealed, consortium: Consortium, name: str) -> bool:
    try:
        Decline.open(reply, consortium.members[name].public_key)
    except BadMessage:
        return False
    return True


def _keep(folder: Path, name: str, reply: Sealed) -> None:
    """Write what left, as the run's store does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.header").write_bytes(reply.header + b"\n" + reply.signature.hex().encode())
    (folder / f"{name}.payload").write_bytes(reply.payload)
