"""From plan to mechanism: every number is a constant of the plan, never of a record."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from collegium.core.errors import NotBuiltYet
from collegium.core.mechanism import spec_digest
from collegium.core.plan import Plan
from collegium.privacy.accountant import epsilon_of
from collegium.privacy.derive import mechanism, noise_multiplier

MakePlan = Callable[..., Plan]


def test_by_hand(make_plan: MakePlan) -> None:
    plan = make_plan(records=(40, 60), sites=2, local_steps=3, privacy={"sampling_rate": 0.25})
    spec = mechanism(plan, plan.sites[1], noise_multiplier=1.5, trainable_digest="sha256:t")
    assert (spec.normaliser, spec.steps, spec.sampling_rate) == (15.0, 3, 0.25)
    assert (spec.noise_multiplier, spec.clip_norm, spec.delta) == (1.5, 1.0, 1e-3)
    assert (spec.unit, spec.relation) == ("record", "add-or-remove-one")
    assert (spec.sampler, spec.batch_cap) == ("poisson", 0)


def test_noise_covers_the_whole_plan(make_plan: MakePlan) -> None:
    plan = make_plan(rounds=5, local_steps=2)
    sigma = noise_multiplier(plan)
    spec = mechanism(plan, plan.sites[0], noise_multiplier=sigma, trainable_digest="")
    assert epsilon_of([(spec, spec.steps)] * 5, plan.privacy.delta) <= plan.privacy.epsilon
    assert epsilon_of([(spec, spec.steps)] * 6, plan.privacy.delta) > plan.privacy.epsilon
    assert sigma > noise_multiplier(make_plan(rounds=4, local_steps=2))


def test_no_privacy_no_noise(make_plan: MakePlan) -> None:
    assert noise_multiplier(make_plan(privacy={"enabled": False})) == 0.0


def test_coordinator_and_site_derive_one_digest_from_one_agreement(make_plan: MakePlan) -> None:
    """clip_norm = 1 and clip_norm = 1.0 are one agreement, so they must be one mechanism."""
    one, other = (make_plan(privacy={"clip_norm": clip, "sampling_rate": 1}) for clip in (1, 1.0))
    assert one.digest == other.digest
    digests = {
        spec_digest(mechanism(plan, plan.sites[0], noise_multiplier=2.0, trainable_digest="t"))
        for plan in (one, other, replace(one, privacy=replace(one.privacy, sampling_rate=1.0)))
    }
    assert len(digests) == 1


@pytest.mark.parametrize("change", [{"unit": "patient"}, {"batch_cap": 100}])
def test_what_is_not_built_is_refused(make_plan: MakePlan, change: dict[str, object]) -> None:
    plan = make_plan(privacy=change)
    with pytest.raises(NotBuiltYet):
        mechanism(plan, plan.sites[0], noise_multiplier=2.0, trainable_digest="")
