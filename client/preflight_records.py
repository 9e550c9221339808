"""Checks beside the records: policy, schema, ledger, device, time. All is shown here alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.enroll import SIGNING_KEY
from ..core.errors import MissingInput
from ..core.mechanism import MechanismSpec
from ..core.signing import load_private
from ..core.site_file import SiteFile
from ..data.checks import check
from ..data.inspect import inspect
from ..data.site_data import SiteData
from ..privacy.accountant import enforced_bound, epsilon_of
from ..privacy.derive import schedule
from ..privacy.fingerprint import Register
from ..privacy.ledger_anchor import Anchor
from ..privacy.ledger_rows import LedgerEntry, verify_chain
from ..privacy.ledger_state import State
from ..privacy.ledger_store import open_readonly, read_rows
from .preflight import Finding, made, ok, problem, unknown, warning
from .words import (
    REGISTER,
    anchor_of,
    budget_words,
    export_of,
    mechanisms,
    policy_of,
    read_records,
    seeded_noise,
)

if TYPE_CHECKING:
    from .kit import Kit

_NEW_JOB = "preflight"


def record_checks(file: SiteFile, kit: Kit) -> Iterator[Finding]:
    """Yield how plan, records and ledger fit; torch is imported after all others have passed."""
    spec: list[MechanismSpec] = []
    yield from made("policy", lambda: _policy(file, kit, spec))
    if not spec:
        yield unknown("records", "not looked at", "the plan must pass this site's policy first")
        return
    data: list[SiteData] = []
    yield from made("records", lambda: _records(file, kit, spec[0], data))
    yield from made("ledger", lambda: _ledger(file, kit, spec[0]))
    if data:
        yield from made("asset", lambda: _asset(file, data[0]))
        yield from made("training", lambda: _training(file, kit, data[0]))
    else:
        yield unknown("training", "not tried", "the records must pass first")


def _policy(file: SiteFile, kit: Kit, found: list[MechanismSpec]) -> Iterator[Finding]:
    plan = kit.plan
    seeded = seeded_noise(file, kit)
    spec = mechanisms(plan, trainable_digest="")[file.site.name]
    broken = policy_of(file, private=plan.privacy.enabled or not seeded).objections(plan, spec)
    for verdict in broken:
        yield problem("policy", f"{verdict.code}: {verdict.reason}", verdict.cure)
    if broken:
        return
    found.append(spec)
    yield ok("policy", "the plan keeps every rule of this site")
    if seeded:
        yield warning(
            "noise", "a lab roster: the noise is seeded, so nothing is private", "use no real data"
        )
    elif plan.privacy.enabled:
        epsilon = epsilon_of(
            schedule(plan, plan.site(file.site.name), spec, plan.rounds.count), spec.delta
        )
        yield ok("epsilon", f"the whole plan costs epsilon {epsilon:.3f} at delta {spec.delta:g}")


def _records(
    file: SiteFile, kit: Kit, spec: MechanismSpec, found: list[SiteData]
) -> Iterator[Finding]:
    data = read_records(file, kit.plan)
    ref = kit.plan.site(file.site.name)
    problems = check(data, model=kit.plan.model, public_records=ref.public_records, unit=spec.unit)
    for each in problems:
        yield problem("records", f"{each.where}: {each.what}", each.cure)
    if problems:
        return
    train, test = len(data.train_y), len(data.test_y)
    if train == 0:
        yield problem(
            "records", "none is left to train on", "lower test_share, or check the export"
        )
        return
    found.append(data)
    held = "" if data.calibration_y is None else f", {len(data.calibration_y)} to calibrate"
    yield ok(
        "records",
        f"{train} to train on (public bound {ref.public_records} {spec.unit}s), {test} to test on"
        f"{held}",
    )
    yield from _looked_at(data, file, kit)


def _looked_at(data: SiteData, file: SiteFile, kit: Kit) -> Iterator[Finding]:
    """Say locally how the records lie against the plan's schema, and what looks wrong."""
    findings = inspect(data, kit.plan, file)
    for each in findings:
        yield warning(each.kind, f"{each.where}: {each.what}", each.cure)
    if not any(each.kind == "drift" for each in findings):
        yield ok("drift", "the records lie where the plan expects them")


def _ledger(file: SiteFile, kit: Kit, spec: MechanismSpec) -> Iterator[Finding]:
    plan, budget = kit.plan, file.policy.budget
    spends, entries = {}, list[LedgerEntry]()
    try:
        with open_readonly(file.ledger_path) as connection:
            rows = read_rows(connection)
    except MissingInput:
        yield ok("ledger", "none yet: the first start makes it")
    else:
        key = load_private(file.keys_path / SIGNING_KEY).public_key()
        entries = verify_chain(rows, key)
        yield ok("ledger", f"{len(entries)} entries, every hash and signature holds")
        yield from _anchor(file, entries)
        spends = State(entries).spends()
    if not plan.privacy.enabled:
        return
    yield ok("at most", f"this plan spends {budget_words(file, kit, spec, entries)}")
    known = any(digest == plan.digest for _, digest in spends)
    spent = enforced_bound(spends, budget.delta).epsilon if spends else 0.0
    ref = plan.site(file.site.name)
    after = {**spends, (_NEW_JOB, plan.digest): schedule(plan, ref, spec, plan.rounds.count)}
    total = enforced_bound(after, budget.delta).epsilon
    text = (
        f"epsilon {spent:.3f} of {budget.epsilon:g} is spent; this plan anew leads to {total:.3f}"
    )
    if total <= budget.epsilon:
        yield ok("budget", text)
    elif known:
        yield warning("budget", f"{text}; it has begun here before", "a resumed job goes on")
    else:
        yield problem("budget", text, "agree on fewer rounds or more noise")


def _anchor(file: SiteFile, entries: Sequence[LedgerEntry]) -> Iterator[Finding]:
    anchor = Anchor(anchor_of(file))
    mark = anchor.read()
    if mark is None and len(entries) > 1:
        anchor.refuse_missing()
    if mark is not None:
        anchor.check(mark, entries)
    if file.anchor_path is None:
        yield warning(
            "anchor",
            "it lies in the state folder: a backup that restores both is not noticed here",
            "name [ledger] anchor on another volume",
        )
    else:
        yield ok("anchor", "it is on its own path, and the ledger holds what it has seen")


def _asset(file: SiteFile, data: SiteData) -> Iterator[Finding]:
    register = Register(file.state_path / REGISTER)
    for digests in export_of(data, register.salt).kinds:
        register.check(file.data.asset, digests)
    yield ok("asset", f"none of these records belongs to another asset than '{file.data.asset}'")


def _training(file: SiteFile, kit: Kit, data: SiteData) -> Iterator[Finding]:
    """Time real private steps on the real records; nothing of them leaves, so nothing is spent."""
    from ..privacy.noise import SystemNoise
    from .process import prepare

    prepared = prepare(file, kit)
    plan, name = kit.plan, file.site.name
    yield ok("device", f"trains on {prepared.trainer.device}")
    one = replace(prepared.spec(name), steps=1)
    base, began = prepared.trainer.open_vector, 0.0
    for step in range(3):  # the first one warms up
        if step == 1:
            began = time.perf_counter()
        prepared.trainer.train(base, data, one, SystemNoise(), site=name, round=1)
    each = (time.perf_counter() - began) / 2
    steps = plan.rounds.count * plan.rounds.local_steps
    round_s = each * plan.rounds.local_steps
    text = (
        f"{each:.3f} s a private step, {steps} steps: about {each * steps / 60:.1f} minutes of"
        " computing (two steps were tried and thrown away; nothing was spent)"
    )
    if round_s > plan.rounds.deadline_s:
        yield problem(
            "training",
            f"a round takes {round_s:.0f} s, its deadline is {plan.rounds.deadline_s:g} s",
            "use a faster device, or agree on a longer deadline or fewer local steps",
        )
    elif round_s > plan.rounds.deadline_s / 2:
        yield warning("training", text, "a busy machine may miss the round's deadline")
    else:
        yield ok("training", text)
