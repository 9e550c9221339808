"""The site's caps: each rule by itself, and no plan that raises spend slips through."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.client.policy import Policy, at_most, steps_left
from collegium.core.errors import Verdict
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.messages import DECLINE_CODES, ONCE
from collegium.core.plan import Plan
from collegium.core.signing import generate_key
from collegium.privacy.derive import mechanism
from collegium.privacy.ledger import Ledger

MakePlan = Callable[..., Plan]
KEY = generate_key()
POLICY = Policy(
    budget=Budget(epsilon=3.0, delta=1e-3, unit="record", relation="add-or-remove-one"),
    max_steps=3,
    max_sampling_rate=0.5,
    max_clip_norm=1.0,
    models=("tabular:linear",),
    min_sites=2,
)


def spec_of(plan: Plan) -> MechanismSpec:
    return mechanism(plan, plan.sites[0], noise_multiplier=2.0, trainable_digest="t")


def test_exactly_what_is_allowed(make_plan: MakePlan) -> None:
    plan = make_plan(2)
    assert POLICY.check(plan, spec_of(plan)).ok
    assert replace(POLICY, plans=(plan.digest,)).check(plan, spec_of(plan)).ok


@pytest.mark.parametrize(
    ("policy", "changes", "code"),
    [
        ({"models": ("hf:bert",)}, {}, "policy-model"),
        ({"plans": ("sha256:x",)}, {}, "policy-plan"),
        ({"min_sites": 3}, {}, "policy-sites"),
        ({"max_steps": 2}, {}, "policy-steps"),
        ({}, {"sampling_rate": 0.6}, "policy-rate"),
        ({}, {"clip_norm": 1.01}, "policy-clip"),
        ({}, {"noise_multiplier": 0.0}, "policy-noise"),
        ({}, {"unit": "patient"}, "policy-unit"),
        ({}, {"relation": "replace-one"}, "policy-unit"),
        ({}, {"delta": 2e-3}, "policy-delta"),
        ({}, {"steps": 2}, "policy-steps"),
    ],
)
def test_each_rule(
    make_plan: MakePlan, policy: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    plan = make_plan(2)
    verdict = replace(POLICY, **policy).check(plan, replace(spec_of(plan), **changes))
    assert not verdict.ok
    assert verdict.code == code
    assert code in DECLINE_CODES
    assert verdict.cure


def test_without_privacy_no_noise_is_asked_for(make_plan: MakePlan) -> None:
    plan = make_plan(2)
    spec = replace(spec_of(plan), noise_multiplier=0.0)
    assert replace(POLICY, private=False).check(plan, spec).ok


@given(
    rounds=st.integers(1, 6), steps=st.integers(1, 3), rate=st.floats(0.01, 1.0),
    clip=st.floats(0.1, 3.0), delta=st.floats(1e-9, 1e-2), sites=st.integers(1, 4),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_whatever_is_accepted_is_within_every_cap(
    make_plan: MakePlan,
    rounds: int,
    steps: int,
    rate: float,
    clip: float,
    delta: float,
    sites: int,
) -> None:
    plan = make_plan(
        sites,
        rounds=rounds,
        local_steps=steps,
        privacy={"sampling_rate": rate, "clip_norm": clip, "delta": delta},
    )
    within = rounds * steps <= 3 and rate <= 0.5 and clip <= 1.0 and delta <= 1e-3 and sites >= 2
    assert POLICY.check(plan, spec_of(plan)).ok == within


# -- what was executed counts, not what the plan says


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "l.sqlite", "ward", replace(POLICY.budget, epsilon=99.0), KEY)
    yield made
    made.close()


def reserve(
    ledger: Ledger, spec: MechanismSpec, job: str, round: int, attempt: int, plan: str
) -> None:
    ledger.reserve(
        job=job, round=round, attempt=attempt, base_sha256="sha256:b", spec=spec, plan=plan
    )


def test_repeated_attempts_and_further_jobs_use_up_max_steps(
    make_plan: MakePlan, ledger: Ledger
) -> None:
    """A coordinator that asks round 1 again and again gets max_steps noisy steps and no more."""
    spec = spec_of(make_plan(2))

    def left(job: str, attempt: int, *, round: int = 1, plan: str = "p") -> Verdict:
        return steps_left(POLICY, ledger, plan, spec, job=job, round=round, attempt=attempt)

    for job, attempt in (("a", 1), ("a", 2), ("b", 1)):
        assert left(job, attempt).ok
        reserve(ledger, spec, job, 1, attempt, "p")
    ledger.abort(job="a", round=1, attempt=2)  # given up is spent all the same
    for job, attempt, round in (("a", 3, 1), ("b", 2, 1), ("c", 1, 1), ("a", 1, 2)):
        verdict = left(job, attempt, round=round)
        assert not verdict.ok and verdict.code == "policy-steps"
        assert verdict.code in DECLINE_CODES
    assert left("a", 1).ok and left("b", 1).ok  # these are paid for
    assert left("c", 1, plan="another").ok


def test_the_evaluation_is_no_training_step(make_plan: MakePlan, ledger: Ledger) -> None:
    spec = spec_of(make_plan(2))
    counting = replace(spec, steps=1)
    for number in range(5):
        reserve(ledger, counting, f"job-{number}", ONCE, 1, "p")
    assert steps_left(POLICY, ledger, "p", spec, job="a", round=1, attempt=1).ok
    tight = replace(POLICY, max_steps=0)
    assert not steps_left(tight, ledger, "p", spec, job="a", round=1, attempt=1).ok


def test_without_privacy_nothing_is_counted(make_plan: MakePlan, ledger: Ledger) -> None:
    policy = replace(POLICY, private=False, max_steps=1)
    spec = replace(spec_of(make_plan(2)), steps=9)
    assert steps_left(policy, ledger, "p", spec, job="a", round=1, attempt=1).ok


@given(
    asked=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(1, 3)), max_size=25)
)
@settings(deadline=None, max_examples=25)
def test_whatever_is_asked_at_most_bounds_what_the_ledger_enforces(
    make_plan: MakePlan, asked: list[tuple[int, int, int]]
) -> None:
    plan = make_plan(2)
    spec, site = spec_of(plan), plan.sites[0]
    policy = replace(POLICY, budget=replace(POLICY.budget, epsilon=99.0), max_steps=5)
    most = at_most(policy, plan, site, spec)
    assert 0 < most < 99.0
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "l.sqlite", "ward", policy.budget, KEY)
        for job, round, attempt in asked:
            name = f"job-{job}"
            key = {"job": name, "round": round, "attempt": attempt}
            if steps_left(policy, ledger, plan.digest, spec, **key).ok:
                reserve(ledger, spec, name, round, attempt, plan.digest)
            assert ledger.enforced() <= most + 1e-9
            assert at_most(policy, plan, site, spec, ledger.entries()) <= most + 1e-9
        assert sum(spec.steps for e in ledger.entries() if e.kind == "reserve") <= 5
        ledger.close()


def test_at_most_is_never_above_the_cap(make_plan: MakePlan) -> None:
    plan = make_plan(2)
    policy = replace(POLICY, max_steps=10_000)
    assert at_most(policy, plan, plan.sites[0], spec_of(plan)) == policy.budget.epsilon
    private = replace(plan, evaluation=replace(plan.evaluation, origin="private"))
    assert at_most(POLICY, private, private.sites[0], spec_of(plan)) == POLICY.budget.epsilon
