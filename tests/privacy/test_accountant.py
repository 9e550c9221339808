"""Epsilon against dp-accounting called directly, frozen tables, and the calibration's edges."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from dp_accounting import dp_event as events
from dp_accounting import privacy_accountant
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput
from collegium.core.mechanism import MechanismSpec
from collegium.privacy.accountant import (
    bound_of,
    calibrate,
    delta_of,
    detection_of,
    enforced_bound,
    epsilon_of,
    filter_epsilon,
)
from collegium.privacy.events import Step

Make = Callable[..., MechanismSpec]
NEIGHBOURS = privacy_accountant.NeighboringRelation

# N = 10,000, B = 256, 780 steps, delta 1e-5, add or remove one; also Opacus' PRV accountant
TABLE = {0.6: 15.807, 0.8: 7.384, 1.0: 4.512, 1.2: 3.225, 1.5: 2.270, 2.0: 1.529}
PRV = {0.6: 15.82, 0.8: 7.394, 1.0: 4.522, 1.2: 3.235, 1.5: 2.279, 2.0: 1.539}


def direct(*parts: tuple[float, float, int], delta: float = 1e-5, interval: float = 1e-3) -> float:
    """dp-accounting's own answer for (noise, rate, steps), one step after the other."""
    accountant = PLDAccountant(NEIGHBOURS.ADD_OR_REMOVE_ONE, value_discretization_interval=interval)
    for noise, rate, steps in parts:
        event = events.PoissonSampledDpEvent(rate, events.GaussianDpEvent(noise))
        for _ in range(steps):
            accountant.compose(event)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("noise", TABLE)
def test_frozen_table(make_spec: Make, noise: float) -> None:
    found = epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=0.0256), 780)], 1e-5)
    assert found == pytest.approx(TABLE[noise], abs=1.1e-3)
    assert abs(found - PRV[noise]) <= 0.02


@pytest.mark.parametrize("noise", [0.8, 1.5])
def test_the_rougher_accountant_says_more(make_spec: Make, noise: float) -> None:
    rough = RdpAccountant()
    rough.compose(
        events.SelfComposedDpEvent(
            events.PoissonSampledDpEvent(0.0256, events.GaussianDpEvent(noise)), 780
        )
    )
    exact = epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=0.0256), 780)], 1e-5)
    assert exact <= rough.get_epsilon(1e-5)


def test_one_full_batch_is_the_gaussian_mechanism(make_spec: Make) -> None:
    """Balle & Wang 2018, theorem 8: the exact delta of a Gaussian at that epsilon."""
    noise = 1.7
    epsilon = epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=1.0), 1)], 1e-5)

    def cdf(x: float) -> float:
        return 0.5 * math.erfc(-x / 2**0.5)

    delta = cdf(0.5 / noise - epsilon * noise) - math.exp(epsilon) * cdf(
        -0.5 / noise - epsilon * noise
    )
    assert delta <= 1e-5
    assert delta == pytest.approx(1e-5, rel=0.02)


def test_mixed_mechanisms_compose_like_dp_accounting(make_spec: Make) -> None:
    spend = [
        (make_spec(noise_multiplier=1.0, sampling_rate=0.1), 7),
        (make_spec(noise_multiplier=2.0, sampling_rate=0.5), 3),
        (make_spec(noise_multiplier=1.0, sampling_rate=0.1), 5),
    ]
    interval = bound_of(spend, 1e-5).interval
    expected = direct((1.0, 0.1, 12), (2.0, 0.5, 3), interval=interval)
    assert epsilon_of(spend, 1e-5) == pytest.approx(expected, abs=1e-6)
    assert epsilon_of(spend[::-1], 1e-5) == epsilon_of(spend, 1e-5)


@given(
    noise=st.sampled_from([0.9, 1.5, 3.0]),
    rate=st.sampled_from([0.05, 0.3, 1.0]),
    cuts=st.lists(st.integers(0, 5), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=15)
def test_rounds_cost_what_their_steps_cost(
    make_spec: Make, noise: float, rate: float, cuts: list[int]
) -> None:
    spec = make_spec(noise_multiplier=noise, sampling_rate=rate)
    apart = epsilon_of([(spec, count) for count in cuts], 1e-5)
    assert apart == epsilon_of([(spec, sum(cuts))], 1e-5)


def test_monotone(make_spec: Make) -> None:
    """More steps, more sampling or less noise never cost less; a smaller delta costs more."""

    def cost(noise: float = 2.0, rate: float = 0.1, steps: int = 20, delta: float = 1e-5) -> float:
        return epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=rate), steps)], delta)

    base = cost()
    assert cost(steps=21) > base
    assert cost(rate=0.11) > base
    assert cost(noise=1.9) > base
    assert cost(delta=1e-6) > base


def test_edges(make_spec: Make) -> None:
    assert epsilon_of([], 1e-5) == 0.0
    assert epsilon_of([(make_spec(), 0)], 1e-5) == 0.0
    assert epsilon_of([(make_spec(noise_multiplier=0.0), 1)], 1e-5) == math.inf
    assert epsilon_of([(make_spec(), 3), (make_spec(noise_multiplier=0.0), 1)], 1e-5) == math.inf


def test_replace_one_costs_more_and_is_not_claimed_as_less(make_spec: Make) -> None:
    """Frozen: replace-one 7.19, zeroing-out as add-or-remove (same setting, sigma 1)."""
    common = {"noise_multiplier": 1.0, "sampling_rate": 0.0256}
    replaced = epsilon_of([(make_spec(relation="replace-one", **common), 780)], 1e-5)
    special = epsilon_of([(make_spec(relation="replace-special", **common), 780)], 1e-5)
    assert replaced == pytest.approx(7.19, abs=0.01)
    assert special == pytest.approx(4.512, abs=6e-4)


@pytest.mark.parametrize("change", [{"unit": "patient"}, {"relation": "replace-one"}])
def test_different_promises_are_never_added_up(make_spec: Make, change: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        epsilon_of([(make_spec(), 1), (make_spec(**change), 1)], 1e-5)


@pytest.mark.slow
def test_fifty_random_schedules_agree_with_dp_accounting(make_spec: Make) -> None:
    """To 1e-6 at the interval that was found, and never above any valid bound."""
    rng = np.random.default_rng(50)
    for _ in range(50):
        parts = [
            (float(rng.uniform(0.7, 6)), float(rng.uniform(0.01, 1)), int(rng.integers(1, 60)))
            for _ in range(rng.integers(1, 5))
        ]
        spend = [
            (make_spec(noise_multiplier=noise, sampling_rate=rate), steps)
            for noise, rate, steps in parts
        ]
        found = bound_of(spend, 1e-5)
        accountant = PLDAccountant(
            NEIGHBOURS.ADD_OR_REMOVE_ONE, value_discretization_interval=found.interval
        )
        rough = RdpAccountant(orders=list(range(2, 65)))
        for noise, rate, steps in parts:
            event = events.PoissonSampledDpEvent(rate, events.GaussianDpEvent(noise))
            for each in (accountant, rough):
                each.compose(event, steps)
        exact = float(accountant.get_epsilon(1e-5))
        assert found.pld == pytest.approx(exact, abs=1e-6)
        assert found.epsilon <= min(exact, float(rough.get_epsilon(1e-5))) + 1e-6


@pytest.mark.parametrize(
    ("cap", "records", "epsilon"),
    [(280, 10_000, 10.7), (320, 10_000, 4.578), (400, 10_000, 4.512), (320, 11_000, 7.474)],
)
def test_truncated_sampling_frozen_table(
    make_spec: Make, cap: int, records: int, epsilon: float
) -> None:
    """Cutting batches at a cap costs: the chance that a record pushes another one out."""
    spec = make_spec(
        noise_multiplier=1.0,
        sampling_rate=0.0256,
        sampler="truncated-poisson",
        batch_cap=cap,
        public_records=records,
    )
    assert epsilon_of([(spec, 780)], 1e-5) == pytest.approx(epsilon, rel=1e-3)
    assert filter_epsilon([(spec, 780)], 1e-5) >= epsilon * 0.999


def test_a_tiny_spend_is_not_floored_by_the_interval(make_spec: Make) -> None:
    """At 1e-3 the accountant says 7.5e-4 where 9.0e-5 is true: the interval is refined."""
    spend = [(make_spec(noise_multiplier=1000.0, sampling_rate=0.1), 1)]
    found = bound_of(spend, 1e-5)
    assert found.interval <= 1e-5
    assert 8.9e-5 < found.epsilon < 9.3e-5
    assert found.epsilon < direct((1000.0, 0.1, 1)) / 5


@pytest.mark.parametrize("relation", ["add-or-remove-one", "replace-one", "replace-special"])
def test_the_filter_is_never_below_the_fixed_schedule(make_spec: Make, relation: str) -> None:
    for noise, rate, steps in ((1.0, 0.0256, 780), (3.0, 0.3, 60), (5.0, 1.0, 10)):
        spec = make_spec(noise_multiplier=noise, sampling_rate=rate, relation=relation)
        assert filter_epsilon([(spec, steps)], 1e-5) >= epsilon_of([(spec, steps)], 1e-5)


def test_the_filter_is_the_gaussians_closed_form(make_spec: Make) -> None:
    """Full batches: D_a = a / (2 sigma^2); Canonne et al. 2020, Proposition 12, over a."""
    noise, steps, delta = 4.0, 8, 1e-5
    found = filter_epsilon([(make_spec(noise_multiplier=noise, sampling_rate=1.0), steps)], delta)
    expected = min(
        steps * order / (2 * noise**2)
        + math.log1p(-1 / order)
        - math.log(delta * order) / (order - 1)
        for order in range(2, 65)
    )
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_second_plan_on_the_asset_is_held_by_the_filter(make_spec: Make) -> None:
    spec = make_spec(noise_multiplier=3.0, sampling_rate=0.3)
    one, two = {"a": [(spec, 20)]}, {"a": [(spec, 10)], "b": [(spec, 10)], "c": []}
    assert enforced_bound(one, 1e-5).epsilon == epsilon_of([(spec, 20)], 1e-5)
    assert enforced_bound(two, 1e-5).epsilon == filter_epsilon([(spec, 20)], 1e-5)
    assert enforced_bound({}, 1e-5).epsilon == 0.0


def test_delta_and_epsilon_are_two_ends_of_one_curve(make_spec: Make) -> None:
    spend = [(make_spec(noise_multiplier=3.0, sampling_rate=0.3), 60)]
    for delta in (1e-3, 1e-5, 1e-7):
        assert delta_of(spend, epsilon_of(spend, delta)) == pytest.approx(delta, rel=0.05)
    assert delta_of([], 1.0) == 0.0
    assert delta_of([(make_spec(noise_multiplier=0.0), 1)], 1.0) == 1.0


def test_what_a_membership_test_can_reach(make_spec: Make) -> None:
    """One full batch is a Gaussian with mu = 1 / sigma: TPR = Phi(Phi^-1(FPR) + mu)."""
    from scipy.stats import norm

    noise, rate = 2.0, 0.01
    found = detection_of([(make_spec(noise_multiplier=noise, sampling_rate=1.0), 1)], rate)
    assert found == pytest.approx(norm.cdf(norm.ppf(rate) + 1 / noise), rel=2e-3)
    assert detection_of([], rate) == rate
    assert detection_of([(make_spec(noise_multiplier=0.0), 1)], rate) == 1.0


def test_calibration_for_what_is_left_of_a_budget(make_spec: Make) -> None:
    """Half is spent: with the new noise the filter's total stays within the whole."""
    spent = [(make_spec(noise_multiplier=6.0, sampling_rate=0.3), 60)]
    left = ((Step(6.0, 0.3), 60),)
    noise = calibrate(epsilon=3.0, delta=1e-4, sampling_rate=0.3, steps=60, spent=left)
    alone = calibrate(epsilon=3.0, delta=1e-4, sampling_rate=0.3, steps=60)

    def total(sigma: float) -> float:
        new = make_spec(noise_multiplier=sigma, sampling_rate=0.3)
        return filter_epsilon([*spent, (new, 60)], 1e-4)

    assert noise > alone
    assert total(noise) <= 3.0 < total(noise - 2.5e-4)
    with pytest.raises(InvalidInput, match="already spent"):
        calibrate(epsilon=0.5, delta=1e-4, sampling_rate=0.3, steps=60, spent=left)


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps"), [(3.0, 0.3, 60), (1.0, 0.5, 10), (0.2, 1.0, 1), (8.0, 0.3, 20)]
)
def test_calibration_is_tight_and_rounded_up(
    make_spec: Make, epsilon: float, rate: float, steps: int
) -> None:
    noise = calibrate(epsilon=epsilon, delta=1e-4, sampling_rate=rate, steps=steps)
    assert noise == round(noise, 4)

    def cost(sigma: float) -> float:
        return epsilon_of([(make_spec(noise_multiplier=sigma, sampling_rate=rate), steps)], 1e-4)

    assert cost(noise) <= epsilon
    assert cost(noise - 2.5e-4) > epsilon


def test_calibration_gives_up_with_a_cure() -> None:
    with pytest.raises(InvalidInput, match="Cure"):
        calibrate(epsilon=1e-9, delta=1e-12, sampling_rate=1.0, steps=1)


def test_more_rounds_reported_means_more_epsilon(make_spec: Make) -> None:
    """An accountant rebuilt every round would print the same number for ever."""
    spec = make_spec(noise_multiplier=3.0, sampling_rate=0.3)
    spent = [epsilon_of([(spec, 1)] * rounds, 1e-4) for rounds in (1, 3, 10, 50)]
    assert spent == sorted(set(spent))
