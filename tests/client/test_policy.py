"""The site's caps: each rule by itself, and no plan that raises spend slips through."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.client.policy import Policy
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.messages import DECLINE_CODES
from collegium.core.plan import Plan
from collegium.privacy.derive import mechanism

MakePlan = Callable[..., Plan]
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
