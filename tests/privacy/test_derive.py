"""From plan to mechanism: every number is a constant of the plan, never of a record."""

from collections.abc import Callable
from dataclasses import replace

from collegium.core.mechanism import spec_digest
from collegium.core.messages import CALIBRATION, EVALUATION, STATISTICS
from collegium.core.plan import Evaluation, Plan
from collegium.core.plan_fitting import Calibration, Statistics
from collegium.privacy.accountant import epsilon_of
from collegium.privacy.derive import (
    calibration_mechanism,
    evaluation_mechanism,
    mechanism,
    noise_multiplier,
    questions,
    schedule,
    statistics_mechanism,
)

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


def test_patients_and_caps_are_of_the_mechanism(make_plan: MakePlan) -> None:
    plan = make_plan(privacy={"unit": "patient", "batch_cap": 100})
    spec = mechanism(plan, plan.sites[0], noise_multiplier=2.0, trainable_digest="")
    assert (spec.unit, spec.sampler, spec.batch_cap) == ("patient", "truncated-poisson", 100)


def test_a_private_evaluation_is_part_of_the_plans_budget(make_plan: MakePlan) -> None:
    """Training's noise grows a little, and the whole schedule still fits."""
    public, private = (
        make_plan(rounds=20, evaluation={"origin": origin}) for origin in ("public", "private")
    )
    more, less = noise_multiplier(private), noise_multiplier(public)
    assert less < more < 1.1 * less
    site = private.sites[0]
    spec = mechanism(private, site, noise_multiplier=more, trainable_digest="")
    spend = schedule(private, site, spec, 20)
    assert len(spend) == 2
    assert len(schedule(private, site, spec, 19)) == 1
    assert 0.99 * private.privacy.epsilon < epsilon_of(spend, 1e-3) <= private.privacy.epsilon
    counting = evaluation_mechanism(private, site)
    assert counting is not None
    assert (counting.clip_norm, counting.sampling_rate, counting.steps) == (2**0.5, 1.0, 1)
    assert evaluation_mechanism(public, site) is None


def fitting(plan: Plan) -> Plan:
    """The plan with everything that a job may ask once."""
    return replace(
        plan,
        statistics=Statistics(share=0.3),
        calibration=Calibration(share=0.2),
        evaluation=Evaluation(origin="private"),
    )


def test_what_is_asked_once_is_part_of_the_plans_epsilon(make_plan: MakePlan) -> None:
    bare = make_plan(2, rounds=5)
    plan = fitting(bare)
    sigma, delta = noise_multiplier(plan), plan.privacy.delta
    assert sigma > noise_multiplier(bare)
    spec = mechanism(plan, plan.sites[0], noise_multiplier=sigma, trainable_digest="d")
    spends = [schedule(plan, plan.sites[0], spec, rounds) for rounds in range(6)]
    assert [len(spend) for spend in spends] == [2, 2, 2, 2, 2, 4]  # statistics come first
    spent = [epsilon_of(spend, delta) for spend in spends]
    assert spent == sorted(set(spent))
    assert 0.29 * plan.privacy.epsilon < spent[0] <= 0.3 * plan.privacy.epsilon
    assert 0.99 * plan.privacy.epsilon < spent[-1] <= plan.privacy.epsilon


def test_each_question_has_its_own_mechanism(make_plan: MakePlan) -> None:
    plan = fitting(make_plan(2))
    asked = questions(plan, plan.sites[0])
    assert set(asked) == {EVALUATION, STATISTICS, CALIBRATION}
    assert len({spec.trainable_digest for spec in asked.values()}) == 3
    assert asked[STATISTICS].clip_norm == 2.0  # the root of 1 + three numbers
    assert asked[CALIBRATION].clip_norm == 1.0
    wider = replace(plan, model=replace(plan.model, bounds={"age": (-9.0, 9.0)}))
    other = statistics_mechanism(wider, wider.sites[0])
    assert other is not None
    assert other.trainable_digest != asked[STATISTICS].trainable_digest


def test_without_privacy_nothing_is_charged_for_them(make_plan: MakePlan) -> None:
    plan = fitting(make_plan(2, privacy={"enabled": False}))
    assert questions(plan, plan.sites[0]) == {}
    for found in (statistics_mechanism, calibration_mechanism):
        spec = found(plan, plan.sites[0])
        assert spec is not None and spec.noise_std == 0.0
        assert found(make_plan(2), plan.sites[0]) is None
